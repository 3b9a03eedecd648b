"""Original-style script; see `python analyze_valley_period_cv.py --help`."""

import sys

from infection_mt.studies.command_lines import run

if __name__ == "__main__":
    sys.exit(run("analyze_valley_period_cv.py"))
