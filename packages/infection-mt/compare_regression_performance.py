"""Original-style script; see `python compare_regression_performance.py --help`."""

import sys

from infection_mt.studies.command_lines import run

if __name__ == "__main__":
    sys.exit(run("compare_regression_performance.py"))
