"""Original-style script; see `python RL_window_size_experiments/64_64_32.py --help`."""

import sys

from spars.scripts import play

if __name__ == "__main__":
    sys.exit(play("window-64_64_32"))
