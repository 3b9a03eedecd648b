"""Original-style script; see `python run_full_cv_analysis.py --help`."""

import sys

from infection_mt.studies.command_lines import run

if __name__ == "__main__":
    sys.exit(run("run_full_cv_analysis.py"))
