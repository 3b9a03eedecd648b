"""Original-style script; see `python extract_features_fp.py --help`."""

import sys

from advmil.prepare.clam_scripts import extract_features_fp

if __name__ == "__main__":
    sys.exit(extract_features_fp())
