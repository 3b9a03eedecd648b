"""Original-style script; see `python STL/Seg_main.py --help`."""

import sys

from til_mtl.scripts import main_seg

if __name__ == "__main__":
    sys.exit(main_seg())
