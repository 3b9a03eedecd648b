"""Original-style script; see `python tools/big_to_small_patching.py --help`."""

import sys

from advmil.prepare.tools import big_to_small_patching

if __name__ == "__main__":
    sys.exit(big_to_small_patching())
