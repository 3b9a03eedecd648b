"""Original-style script; see `python analyze_multitask_results.py --help`."""

import sys

from infection_mt.scripts import analyze_multitask_results

if __name__ == "__main__":
    sys.exit(analyze_multitask_results())
