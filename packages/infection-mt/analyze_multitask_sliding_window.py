"""Original-style script; see `python analyze_multitask_sliding_window.py --help`."""

import sys

from infection_mt.studies.command_lines import run

if __name__ == "__main__":
    sys.exit(run("analyze_multitask_sliding_window.py"))
