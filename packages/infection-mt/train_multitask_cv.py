"""Original-style script; see `python train_multitask_cv.py --help`."""

import sys

from infection_mt.scripts import train_multitask_cv

if __name__ == "__main__":
    sys.exit(train_multitask_cv())
