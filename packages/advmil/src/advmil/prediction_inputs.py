"""What to predict: feature files and slides that a user names, prepared where needed and grouped to patients."""

from __future__ import annotations

import argparse
import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from advmil.config import Config
from advmil.data.tables import shorten
from advmil.errors import DataError
from advmil.new_bags import FEATURE_SUFFIXES
from advmil.prepare.options import DEFAULT_STEPS, SLIDE_SUFFIXES
from medshared.bags import BagError, check_uniform, describe_bag
from medshared.tables import Column, TableError, read_table

logger = logging.getLogger(__name__)

H5 = (".h5", ".hdf5")
TABLE = (Column("pathology_id", unique=True), Column("patient_id"))


@dataclass(frozen=True)
class Item:
    """What became of an input, a slide or a patient.

    Attributes:
        kind: What it is.
        name: Its name.
        status: ``done``, ``left out`` (with a reason that is no fault) or ``failed``.
        message: Why.
    """

    kind: Literal["input", "slide", "patient"]
    name: str
    status: Literal["done", "left out", "failed"]
    message: str = ""


@dataclass
class Inputs:
    """Feature files and slides by name, and what could not be used.

    Attributes:
        features: Slide → feature file.
        slides: Slide → slide file, for slides without features.
        items: Inputs that failed.
    """

    features: dict[str, Path] = field(default_factory=dict)
    slides: dict[str, Path] = field(default_factory=dict)
    items: list[Item] = field(default_factory=list)

    def failed(self, slide: str) -> str | None:
        """Return why a slide failed; null when it did not."""
        found = [item.message for item in self.items if item.name == slide and item.status == "failed"]
        return found[0] if found else None


def collect_inputs(paths: Sequence[Path]) -> Inputs:
    """Find the feature files and slides among paths and in folders among them.

    A folder gives its feature files, those in its ``h5_files`` and ``pt_files``, and its slides. Of a slide's
    ``.h5`` and ``.pt`` the first is taken, which has coordinates; a slide whose features are given is not prepared.

    Args:
        paths: Files and folders.
    """
    found = Inputs()
    for path in paths:
        if path.is_dir():
            inside = [
                each
                for folder in (path, path / "h5_files", path / "pt_files")
                if folder.is_dir()
                for each in sorted(folder.iterdir())
                if each.suffix.lower() in (*FEATURE_SUFFIXES, *SLIDE_SUFFIXES) and each.is_file()
            ]
            if not inside:
                kinds = f"features ({', '.join(FEATURE_SUFFIXES)}) or slides ({', '.join(SLIDE_SUFFIXES)})"
                found.items.append(Item("input", str(path), "failed", f"{path}: no {kinds} in this folder"))
            for each in inside:
                _add(found, each)
        elif path.is_file():
            _add(found, path)
        else:
            found.items.append(Item("input", str(path), "failed", f"{path}: no such file or folder"))
    for slide in found.features:
        found.slides.pop(slide, None)
    return found


def _add(found: Inputs, path: Path) -> None:
    suffix = path.suffix.lower()
    if suffix not in (*FEATURE_SUFFIXES, *SLIDE_SUFFIXES):
        message = f"{path}: neither features ({', '.join(FEATURE_SUFFIXES)}) nor a slide by its extension"
        found.items.append(Item("input", str(path), "failed", message))
        return
    chosen = found.features if suffix in FEATURE_SUFFIXES else found.slides
    before = chosen.get(path.stem)
    if before is None or (suffix in H5 and before.suffix.lower() not in H5):
        chosen[path.stem] = path
    elif before.resolve() != path.resolve() and not (before.suffix.lower() in H5 and suffix not in H5):
        message = f"slide {path.stem} is given twice, {before} and {path}: give one of them"
        if found.failed(path.stem) is None:
            found.items.append(Item("slide", path.stem, "failed", message))


def prepare_slides(inputs: Inputs, arguments: argparse.Namespace, output: Path) -> None:
    """Take slides through the preparation; their features join those that were given.

    Args:
        inputs: Its ``slides`` are prepared.
        arguments: With the flags of tissue and encoder.
        output: Receives what ``advmil prepare`` writes.

    Raises:
        DataError: The preparation cannot start, such as without an encoder's weights.
    """
    from advmil.prepare.pipeline import from_arguments, run
    from advmil.prepare.process_list import ListedSlide, read_process_list, write_process_list

    folders: dict[Path, list[Path]] = {}
    for path in inputs.slides.values():
        folders.setdefault(path.parent, []).append(path)
    steps = tuple(s for s in DEFAULT_STEPS if s != "regions" or not arguments.plain_patches)
    more = {
        "output": output,
        "steps": steps,
        "slide_ext": None,
        "table": None,
        "clusters": 8,
        "shard": None,
        "jobs": 1,
        "again": False,
    }
    for number, (folder, paths) in enumerate(folders.items()):
        preparation = from_arguments(argparse.Namespace(**(vars(arguments) | more | {"slides": folder})))
        names = {path.name for path in paths}
        listed = [ListedSlide(path.name, preparation.parameters) for path in paths]
        if preparation.process_list is not None:
            own = read_process_list(preparation.process_list, preparation.parameters)
            own = [slide for slide in own if slide.slide_id in names]
            listed = own + [slide for slide in listed if slide.slide_id not in {s.slide_id for s in own}]
        chosen = write_process_list(output / f"slides-{number + 1}.csv", listed, {})
        outcomes, _ = run(dataclasses.replace(preparation, process_list=chosen))
        failed = {
            o.item: f"{o.step}: {o.message}" for o in outcomes if o.status in ("failed", "empty", "busy")
        }
        for path in paths:
            features = preparation.feature_folder / "h5_files" / f"{path.stem}.h5"
            if path.stem in failed or not features.is_file():
                message = f"{path}: {failed.get(path.stem, 'no features were made')}"
                inputs.items.append(Item("slide", path.stem, "failed", message))
            else:
                inputs.features[path.stem] = features


def check_mixture(features: Sequence[Path], config: Config) -> None:
    """Refuse features of different encoders or spacings.

    Files that cannot be read or have another width than the model's fail by themselves later.

    Raises:
        DataError: Naming two files and what differs.
    """
    infos = []
    for path in features:
        if path.suffix.lower() not in H5:
            continue  # a tensor says nothing about its encoder
        try:
            info = describe_bag(path)
        except BagError:
            continue
        if info.width == config.bcb_widths[0]:
            infos.append(info)
    try:
        check_uniform(infos)
    except BagError as error:
        raise DataError(str(error)) from error


def group_patients(inputs: Inputs, table: Path | None) -> dict[str, list[str]]:
    """Return the slides of each patient, patients sorted by name, slides in the order of the table.

    Args:
        inputs: All slides; those that the table lacks are added to its ``items`` as failed.
        table: CSV with ``pathology_id`` and ``patient_id``; null makes each slide a patient.

    Raises:
        DataError: The table cannot be read or names none of the slides.
    """
    names = {*inputs.features, *inputs.slides}
    if table is None:
        return {slide: [slide] for slide in sorted(names)}
    try:
        rows = read_table(table, TABLE)
    except FileNotFoundError as error:
        raise DataError(f"{table}: no such table of slides (--table)") from error
    except TableError as error:
        raise DataError(str(error)) from error
    patients: dict[str, list[str]] = {}
    for slide, patient in zip(rows["pathology_id"], rows["patient_id"], strict=True):
        patients.setdefault(patient, []).append(slide)
    known = set(rows["pathology_id"])
    unknown = sorted(names - known)
    if names and len(unknown) == len(names):
        raise DataError(
            f"{table} names none of the {len(names)} slides given ({shorten(unknown)}): its pathology_id must be file "
            "names without their extension"
        )
    for slide in unknown:
        message = f"slide {slide} is not in {table}: add a row, or leave --table out"
        inputs.items.append(Item("slide", slide, "failed", message))
    chosen = {}
    for patient in sorted(patients):
        present = [slide for slide in patients[patient] if slide in names]
        if not present:
            continue
        missing = [slide for slide in patients[patient] if slide not in names]
        if missing:
            logger.warning(
                "patient %s: predicted without the slides not given (%s)", patient, shorten(missing)
            )
            inputs.items += [
                Item("slide", slide, "left out", "in the table, but not given") for slide in missing
            ]
        chosen[patient] = present
    return chosen
