"""Original-style script; see `python train.py --help`."""

import sys

from aespa.scripts import train

if __name__ == "__main__":
    sys.exit(train())
