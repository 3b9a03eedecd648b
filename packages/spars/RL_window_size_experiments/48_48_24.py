"""Original-style script; see `python RL_window_size_experiments/48_48_24.py --help`."""

import sys

from spars.scripts import play

if __name__ == "__main__":
    sys.exit(play("window-48_48_24"))
