"""Original-style script; see `python generate_regression_residual_plots.py --help`."""

import sys

from infection_mt.studies.command_lines import run

if __name__ == "__main__":
    sys.exit(run("generate_regression_residual_plots.py"))
