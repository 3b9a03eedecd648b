"""Original-style script; see `python RL_threshold_experiments/0.6_threshold.py --help`."""

import sys

from spars.scripts import play

if __name__ == "__main__":
    sys.exit(play("threshold-0.6"))
