"""Original-style script; see `python TIL_prediction/predict.py --help`."""

import sys

from til_mtl.scripts import predict

if __name__ == "__main__":
    sys.exit(predict())
