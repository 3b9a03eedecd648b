"""Original-style script; see `python load_checkpoint_example.py --help`."""

import sys

from infection_mt.studies.command_lines import run

if __name__ == "__main__":
    sys.exit(run("load_checkpoint_example.py"))
