"""Original-style script; see `python tools/patchgcn_graph_s2.py --help`."""

import sys

from advmil.prepare.tools import patchgcn_graph_s2

if __name__ == "__main__":
    sys.exit(patchgcn_graph_s2())
