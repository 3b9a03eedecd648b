"""Original-style script; see `python val.py --help`."""

import sys

from aespa.scripts import val

if __name__ == "__main__":
    sys.exit(val())
