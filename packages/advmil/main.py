"""Original-style script; see `python main.py --help`."""

import sys

from advmil.scripts import main_script

if __name__ == "__main__":
    sys.exit(main_script())
