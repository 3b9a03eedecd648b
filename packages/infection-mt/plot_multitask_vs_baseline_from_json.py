"""Original-style script; see `python plot_multitask_vs_baseline_from_json.py --help`."""

import sys

from infection_mt.studies.command_lines import run

if __name__ == "__main__":
    sys.exit(run("plot_multitask_vs_baseline_from_json.py"))
