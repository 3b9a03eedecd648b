"""Original-style script; see `python model_stats.py --help`."""

import sys

from advmil.scripts import model_stats

if __name__ == "__main__":
    sys.exit(model_stats())
