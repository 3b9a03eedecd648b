"""Original-style script; see `python regenerate_cv_predictions.py --help`."""

import sys

from infection_mt.studies.command_lines import run

if __name__ == "__main__":
    sys.exit(run("regenerate_cv_predictions.py"))
