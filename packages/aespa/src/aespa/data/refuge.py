"""REFUGE: fundus images whose optic cup and disc seven raters outlined; the original used the cup alone, uncropped."""

from __future__ import annotations

import re
from pathlib import Path

from aespa.config import Config
from aespa.data.records import Record, Split, files_by_name, natural_order, subfolders

FOLDERS: dict[Split, str] = {"train": "Training-400", "test": "Test-400"}
_MASK = re.compile(r"_seg_(cup|disc)_(\w+)\.png$")


def find_refuge(config: Config, split: Split) -> list[Record]:
    """List the images of a split; ``structure`` picks the masks, ``crop`` cuts around the discs (else the cups)."""
    found: list[tuple[Path, dict[tuple[str, str], Path]]] = []
    for folder in subfolders(config.data_path / FOLDERS[split]):
        files = files_by_name(folder)
        if f"{folder.name}.jpg" in files:
            found.append((files[f"{folder.name}.jpg"], _masks(folder.name, files)))
    ids = {rater for _, masks in found for structure, rater in masks if structure == config.structure}
    raters = tuple(sorted(ids, key=natural_order))
    crops = bool(config.resolved_value("crop"))
    return [
        Record(
            name=image.stem,
            patient=image.stem,
            image=image,
            raters=tuple(masks.get((config.structure, rater)) for rater in raters),
            rater_ids=raters,
            crop_around=_around(masks) if crops else (),
        )
        for image, masks in found
    ]


def _masks(name: str, files: dict[str, Path]) -> dict[tuple[str, str], Path]:
    masks = {}
    for file, path in files.items():
        match = _MASK.search(file.removeprefix(name)) if file.startswith(name) else None
        if match:
            masks[match.group(1), match.group(2)] = path
    return masks


def _around(masks: dict[tuple[str, str], Path]) -> tuple[Path, ...]:
    discs = tuple(path for (structure, _), path in masks.items() if structure == "disc")
    return discs or tuple(masks.values())
