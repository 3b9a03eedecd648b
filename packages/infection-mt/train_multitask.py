"""Original-style script; see `python train_multitask.py --help`."""

import sys

from infection_mt.scripts import train_multitask

if __name__ == "__main__":
    sys.exit(train_multitask())
