"""The patches of one run: training, validation and test sets, checked before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from til_mtl.config import TASKS, Config
from til_mtl.data.folders import find_run_patches
from til_mtl.data.store import PatchStore
from til_mtl.errors import DataError


@dataclass(frozen=True)
class RunData:
    """The sets of a run.

    Attributes:
        stores: ``train``, ``val`` and, where there is one, ``test``.
    """

    stores: dict[str, PatchStore]

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of patches by set and task."""
        found = {}
        for name, store in self.stores.items():
            found[name] = {
                "segmentation": int((store.tasks == 0).sum()),
                "detection": int((store.tasks == 1).sum()),
            }
        return found


def load_run_data(config: Config) -> RunData:
    """Find and check the patches of a run.

    Args:
        config: Gives folders, folds, size, cache.

    Raises:
        DataError: A set is empty or a file cannot be used.
    """
    root = config.data_dir or Path.cwd()
    files = find_run_patches(config)
    stores = {name: PatchStore(found, config) for name, found in files.items() if found}
    for name in ("train", "val"):
        if name not in stores:
            raise DataError(
                f"{root}: no {name} patches; expected {root}/<task>/{name}/img/*.png with masks of the same names in "
                f"../mask, for {' and '.join(TASKS[config.task])}; prepare_tiger.py writes this layout"
            )
    data = RunData(stores)
    for name, counts in data.counts().items():
        missing = [task for task in TASKS[config.task] if not counts[task]]
        if name == "train" and missing:
            raise DataError(f"{root}: no training patches for {' and '.join(missing)}; --task needs them")
    return data


def find_store(config: Config, name: str) -> PatchStore | None:
    """Return the patches of one set; null where it has none.

    Args:
        config: Gives folders, folds, size, cache.
        name: ``train``, ``val`` or ``test``.
    """
    files = find_run_patches(config).get(name)
    return PatchStore(files, config) if files else None
