"""Own data: ``images/<name>.png`` and ``raters/<id>/<name>.png``, with an optional split and list of patients."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from aespa.config import Config
from aespa.data.reading import IMAGE_SUFFIXES
from aespa.data.records import Record, Split, files_by_name, subfolders
from aespa.data.splitting import split_by_patient
from aespa.errors import DataError
from medshared.files import read_json
from medshared.tables import Column, TableError, read_table

logger = logging.getLogger(__name__)

MASK_SUFFIXES = (".png", ".npy", ".tif", ".tiff", ".bmp")
TEST_FRACTION = 0.2


def find_folders(config: Config, split: Split) -> list[Record]:
    """List the images of a split.

    The split is told by folders ``train/`` and ``test/``, by ``splits.json`` (``{"train": [names], "test": [names]}``),
    or else drawn by patient with the run's seed.
    """
    home = config.data_path
    if (home / "images").is_dir():
        records = _records(home, home)
        named = home / "splits.json"
        if named.is_file():
            return _of_split_file(named, records, split)
        train, test = split_by_patient(records, TEST_FRACTION, config.seed)
        return train if split == "train" else test
    if not (home / split / "images").is_dir():
        raise DataError(f"{home / split / 'images'}: no such folder; split {split!r} needs it")
    return _records(home / split, home)


def _records(folder: Path, home: Path) -> list[Record]:
    """Return the records of one ``images/`` and ``raters/``."""
    images = _by_stem(folder / "images", IMAGE_SUFFIXES)
    masks = {each.name: _by_stem(each, MASK_SUFFIXES) for each in subfolders(folder / "raters")}
    if not masks:
        raise DataError(
            f"{folder / 'raters'}: no rater was found: expected raters/<id>/<name of the image>.png"
        )
    for rater, files in masks.items():
        stray = [path.name for stem, path in files.items() if stem not in images]
        if stray:
            raise DataError(
                f"{folder / 'raters' / rater}: {len(stray)} masks belong to no image of {folder / 'images'} "
                f"({', '.join(stray[:5])}): a mask has the name of its image"
            )
    patients = _patients(home / "patients.csv", images)
    return [
        Record(name, patients[name], image, tuple(files.get(name) for files in masks.values()), tuple(masks))
        for name, image in images.items()
    ]


def _by_stem(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for name, path in files_by_name(folder).items():
        if name.endswith((".nii", ".nii.gz")):
            raise DataError(f"{path}: volumes are not read here: save their slices as 8-bit PNG")
        if path.suffix.lower() not in suffixes:
            continue
        if path.stem in found:
            raise DataError(f"{path}: {found[path.stem].name} has the same name: keep one of them")
        found[path.stem] = path
    return found


def _patients(path: Path, images: dict[str, Path]) -> dict[str, str]:
    """Return the patient of each image; without a table, every image is a patient."""
    if not path.is_file():
        return {name: name for name in images}
    try:
        table = read_table(path, [Column("name", unique=True), Column("patient")])
    except TableError as error:
        raise DataError(str(error)) from error
    known = dict(zip(table["name"].astype(str), table["patient"].astype(str), strict=True))
    missing = [name for name in images if name not in known]
    if missing:
        raise DataError(
            f"{path}: column 'name' lacks {len(missing)} images ({', '.join(missing[:5])}); names are those of the "
            "files without their endings"
        )
    return known


def _of_split_file(path: Path, records: list[Record], split: Split) -> list[Record]:
    try:
        splits = read_json(path)
    except ValueError as error:
        raise DataError(str(error)) from error
    if not isinstance(splits, dict) or not all(isinstance(splits.get(s), list) for s in ("train", "test")):
        raise DataError(f'{path}: expected {{"train": [names], "test": [names]}}')
    both = sorted(set(splits["train"]) & set(splits["test"]))
    if both:
        raise DataError(f"{path}: {len(both)} names are in 'train' and in 'test' ({', '.join(both[:5])})")
    known = {record.name for record in records}
    unknown = [str(name) for name in splits[split] if name not in known]
    if unknown:
        raise DataError(
            f"{path}: {split!r} names {len(unknown)} images that are not there ({', '.join(unknown[:5])})"
        )
    chosen = set(splits[split])
    train, test = ({r.patient for r in records if r.name in set(splits[s])} for s in ("train", "test"))
    if train & test:
        logger.warning("%s: %d patients have images in both splits", path, len(train & test))
    return [record for record in records if record.name in chosen]
