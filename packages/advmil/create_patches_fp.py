"""Original-style script; see `python create_patches_fp.py --help`."""

import sys

from advmil.prepare.clam_scripts import create_patches_fp

if __name__ == "__main__":
    sys.exit(create_patches_fp())
