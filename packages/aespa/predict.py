"""Images and volumes → masks; see `python predict.py --help`."""

import sys

from aespa.scripts import predict

if __name__ == "__main__":
    sys.exit(predict())
