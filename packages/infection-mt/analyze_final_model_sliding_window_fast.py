"""Original-style script; see `python analyze_final_model_sliding_window_fast.py --help`."""

import sys

from infection_mt.studies.command_lines import run

if __name__ == "__main__":
    sys.exit(run("analyze_final_model_sliding_window_fast.py"))
