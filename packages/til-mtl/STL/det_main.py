"""Original-style script; see `python STL/det_main.py --help`."""

import sys

from til_mtl.scripts import main_det

if __name__ == "__main__":
    sys.exit(main_det())
