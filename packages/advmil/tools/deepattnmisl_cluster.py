"""Original-style script; see `python tools/deepattnmisl_cluster.py --help`."""

import sys

from advmil.prepare.tools import deepattnmisl_cluster

if __name__ == "__main__":
    sys.exit(deepattnmisl_cluster())
