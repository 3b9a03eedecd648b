"""Original-style script; see `python validate_on_run2.py --help`."""

import sys

from infection_mt.studies.command_lines import run

if __name__ == "__main__":
    sys.exit(run("validate_on_run2.py"))
