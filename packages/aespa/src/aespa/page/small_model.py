"""A small network for a page without weights: trained once on drawn images and kept in the user's cache."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

from aespa import __version__
from aespa.config import Config
from aespa.demo import demo_keys
from aespa.errors import CheckpointError
from medshared.gpu import one_thread

logger = logging.getLogger(__name__)

RECIPE = 1  # counts changes of what is trained, so that an earlier network is not taken for it
IMAGES, VALIDATION_IMAGES = 480, 16
SIZE_PX, ROUNDS = 64, 6
KEYS = {"epochs": 1, "val_freq": 1, "progress": True}
DATA_SEED, VALIDATION_SEED = 1, 3  # the page's own examples are drawn from seed 2


def cache_folder() -> Path:
    """Return the folder of kept networks: ``AESPA_CACHE``, or ``aespa`` in the user's cache folder."""
    named = os.environ.get("AESPA_CACHE")
    if named:
        return Path(named)
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home and Path(home).is_absolute() else Path.home() / ".cache") / "aespa"


def small_model_path() -> Path:
    """Return where this version keeps its network."""
    return cache_folder() / f"small-model-{__version__}-{RECIPE}.pt"


def small_model() -> Path:
    """Return a checkpoint of the small network; the first call trains it, for about a minute on one core.

    Raises:
        OSError: The cache cannot be written.
        medshared.command_line.RunInterruptedError: A signal stopped the training.
    """
    path = small_model_path()
    if _is_whole(path):
        return path
    logger.info(
        "no -weights: training a small demonstration network on drawn images, about a minute; it is kept as %s",
        path,
    )
    with tempfile.TemporaryDirectory(prefix="aespa-") as folder:
        train_small_model(path, Path(folder) / "run")
    return path


def train_small_model(path: Path, run: Path) -> None:
    """Train the small network.

    Args:
        path: The checkpoint to write, atomically.
        run: Folder for the run.
    """
    from aespa.models.checkpoint import load_network, save_network
    from aespa.synthetic_drawing import draw_arrays
    from aespa.training import RunArrays, train_run

    config = Config(**demo_keys("AESPA", Path(), 0, "cpu") | KEYS | {"runs": ROUNDS, "image_size": SIZE_PX})
    train = draw_arrays(IMAGES, SIZE_PX, DATA_SEED)
    val = draw_arrays(VALIDATION_IMAGES, SIZE_PX, VALIDATION_SEED)
    with one_thread():  # tensors this small gain nothing from more
        train_run(config, run, arrays=RunArrays(train, val, val), measure=False)
    network, found = load_network(run / "checkpoints" / "best.pt")
    save_network(path, network, epoch=found["epoch"], config=found["config"])


def _is_whole(path: Path) -> bool:
    from aespa.models.checkpoint import load_network

    if not path.is_file():
        return False
    try:
        load_network(path)
    except CheckpointError as error:
        logger.warning("%s; it is made again", error)
        return False
    return True
