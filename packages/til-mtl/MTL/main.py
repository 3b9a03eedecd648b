"""Original-style script; see `python MTL/main.py --help`."""

import sys

from til_mtl.scripts import main_mtl

if __name__ == "__main__":
    sys.exit(main_mtl())
