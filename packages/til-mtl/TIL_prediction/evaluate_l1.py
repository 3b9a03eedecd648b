"""Original-style script; see `python TIL_prediction/evaluate_l1.py --help`."""

import sys

from til_mtl.scripts import evaluate_l1

if __name__ == "__main__":
    sys.exit(evaluate_l1())
