"""What this machine and installation can do for games on CT volumes."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from medshared.doctor import describe_machine

logger = logging.getLogger(__name__)

PACKAGES = (
    *("spars", "medshared", "torch", "stable-baselines3", "gymnasium", "pettingzoo", "nibabel", "scipy"),
    *("numpy", "pandas", "matplotlib"),
)
EXTRAS = {
    "pydicom": "spars[dicom]",
    "lightning_fabric": "spars[distributed]",
    "plotly": "spars[overlay]",
    "skimage": "spars[overlay]",
    "tensorboard": "spars[tensorboard]",
    "wandb": "spars[wandb]",
}


def diagnose() -> int:
    """Log what this machine and installation can do.

    Returns:
        Exit code: 1 when volumes cannot be written and read, or no game can be played.
    """
    lines = describe_machine(PACKAGES, EXTRAS)
    works = []
    for check in (check_volumes, check_game):
        try:
            lines.append(check())
            works.append(True)
        except (ImportError, OSError, ValueError, RuntimeError) as error:
            lines.append(f"{check.__name__.removeprefix('check_')}: does not work: {error}")
            works.append(False)
    for line in lines:
        logger.info(line)
    return 0 if all(works) else 1


def check_volumes() -> str:
    """Write a small volume, read it again and say so.

    Raises:
        RuntimeError: What was read is not what was written.
    """
    import numpy as np

    from medshared.volumes import read_volume, write_volume

    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    affine = np.diag([0.7, 0.7, 2.5, 1.0])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "volume.nii.gz"
        write_volume(path, array, affine)
        found = read_volume(path)
    if not (np.array_equal(found.array, array) and np.allclose(found.affine, affine)):
        raise RuntimeError("a NIfTI volume comes back changed")
    return "volumes: NIfTI is written and read"


def check_game() -> str:
    """Score a window with an untrained classifier and say how many windows a volume of the original has.

    Raises:
        RuntimeError: The score is no probability.
    """
    import numpy as np

    from spars.config import GameConfig
    from spars.game.scorers import NetworkScorer
    from spars.lattice import Lattice
    from spars.models.build import build_classifier

    scorer = NetworkScorer(build_classifier("window", (8, 8, 8)).eval(), "native")
    score = float(scorer(np.zeros((1, 8, 8, 8), np.float32))[0])
    if not 0 <= score <= 1:
        raise RuntimeError(f"a classifier gives the score {score}, no probability")
    keys = GameConfig()
    n = len(Lattice(keys.full_image_size, keys.window_size, keys.step_size))
    return f"game: windows are scored; a volume of the published setting has {n:,} of them"
