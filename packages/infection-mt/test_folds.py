"""Original-style script; see `python test_folds.py --help`."""

import sys

from infection_mt.studies.command_lines import run

if __name__ == "__main__":
    sys.exit(run("test_folds.py"))
