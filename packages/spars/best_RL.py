"""Original-style script; see `python best_RL.py --help`."""

import sys

from spars.scripts import play

if __name__ == "__main__":
    sys.exit(play("best_RL"))
