"""Original-style script; see `python analysis_scripts/extract_error_montages.py --help`."""

import sys

from infection_mt.studies.command_lines import run

if __name__ == "__main__":
    sys.exit(run("extract_error_montages.py"))
