"""Original-style script; see `python classifier_experiments/ex5_24in.py --help`."""

import sys

from spars.scripts import train_classifier

if __name__ == "__main__":
    sys.exit(train_classifier("ex5_24in"))
