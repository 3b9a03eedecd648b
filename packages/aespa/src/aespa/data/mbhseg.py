"""MBHSeg: slices of head CT with up to four raters, as `aespa.prepare.mbhseg` writes them.

The original lost who outlined what where a rater's file was missing; here every rater keeps a column.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from aespa.config import Config
from aespa.data.records import Record, Split, files_by_name, natural_order, subfolders

CLASSES = (1, 2, 3, 4, 5)
_MASK = re.compile(r"(?P<slice>.+)_r(?P<rater>[^_]+)\.npy$")


def find_binary(config: Config, split: Split) -> list[Record]:
    """List the slices of a split, of all classes together."""
    home = config.data_path / split
    found: list[tuple[str, Path, dict[str, Path]]] = []
    for folder in subfolders(home / "imgs"):
        masks: dict[str, dict[str, Path]] = {}
        for name, path in files_by_name(home / "gt" / folder.name).items():
            match = _MASK.match(name)
            if match:
                masks.setdefault(match["slice"], {})[match["rater"]] = path
        for name, image in files_by_name(folder).items():
            if name.endswith(".png"):
                found.append((folder.name, image, masks.get(image.stem, {})))
    raters = tuple(sorted({rater for _, _, masks in found for rater in masks}, key=natural_order))
    return [
        Record(f"{case}/{image.stem}", case, image, tuple(masks.get(rater) for rater in raters), raters)
        for case, image, masks in found
    ]


def find_multiclass(config: Config, split: Split) -> list[Record]:
    """List the slices of a split once a class: each class against the rest, or ``target_class`` alone."""
    classes = CLASSES if config.target_class is None else (config.target_class,)
    return [
        replace(record, name=f"{record.name}/class_{target}", target_class=target)
        for record in find_binary(config, split)
        for target in classes
    ]
