"""Original-style script; see `python classifier_experiments/ex3_16in.py --help`."""

import sys

from spars.scripts import train_classifier

if __name__ == "__main__":
    sys.exit(train_classifier("ex3_16in"))
