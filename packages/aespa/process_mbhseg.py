"""Original-style script; see `python process_mbhseg.py --help`."""

import sys

from aespa.scripts import process_mbhseg

if __name__ == "__main__":
    sys.exit(process_mbhseg())
