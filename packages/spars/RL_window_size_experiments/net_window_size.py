"""Original-style script, importable as the original's: `python net_window_size.py --help`."""

import sys

if __name__ == "__main__":  # before the import of torch below, so that --help answers at once
    from spars.scripts import train_classifier

    sys.exit(train_classifier("net_global"))

from spars.original.net_global import *  # noqa: F403
