"""Original-style script; see `python TIL_prediction/evaluate.py --help`."""

import sys

from til_mtl.scripts import evaluate_scores

if __name__ == "__main__":
    sys.exit(evaluate_scores())
