"""Original-style script; see `python prepare_tiger.py --help`."""

import sys

from til_mtl.scripts import prepare_tiger

if __name__ == "__main__":
    sys.exit(prepare_tiger())
