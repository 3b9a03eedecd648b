"""Original-style script; see `python aespa_demo.py --help`."""

import sys

from aespa.scripts import aespa_demo

if __name__ == "__main__":
    sys.exit(aespa_demo())
