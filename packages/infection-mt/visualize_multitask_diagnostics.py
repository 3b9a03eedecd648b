"""Original-style script; see `python visualize_multitask_diagnostics.py --help`."""

import sys

from infection_mt.studies.command_lines import run

if __name__ == "__main__":
    sys.exit(run("visualize_multitask_diagnostics.py"))
