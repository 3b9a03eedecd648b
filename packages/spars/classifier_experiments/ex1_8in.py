"""Original-style script; see `python classifier_experiments/ex1_8in.py --help`."""

import sys

from spars.scripts import train_classifier

if __name__ == "__main__":
    sys.exit(train_classifier("ex1_8in"))
