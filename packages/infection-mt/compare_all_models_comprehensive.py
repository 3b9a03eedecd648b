"""Original-style script; see `python compare_all_models_comprehensive.py --help`."""

import sys

from infection_mt.studies.command_lines import run

if __name__ == "__main__":
    sys.exit(run("compare_all_models_comprehensive.py"))
