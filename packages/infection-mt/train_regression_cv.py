"""Original-style script; see `python train_regression_cv.py --help`."""

import sys

from infection_mt.scripts import train_regression_cv

if __name__ == "__main__":
    sys.exit(train_regression_cv())
