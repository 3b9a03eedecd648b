"""Original-style script; see `python analyze_regression_by_class.py --help`."""

import sys

from infection_mt.studies.command_lines import run

if __name__ == "__main__":
    sys.exit(run("analyze_regression_by_class.py"))
