"""``advmil check``: do table, split and feature files of a run fit together?"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from advmil.config import Config
from advmil.data.bags import BagSource
from advmil.data.labels import fold_warnings
from advmil.data.splits import Split, check_split, read_split
from advmil.data.tables import Cohort, read_cohort, shorten
from advmil.errors import DataError
from advmil.run_data import split_path

logger = logging.getLogger(__name__)

T = TypeVar("T")
MANY = 10  # missing slides from which on they are counted instead of listed
MISSING = ": no such file"
NLST_ACCESS = (
    "slides of the NLST are not public: request them from the National Cancer Institute (cdas.cancer.gov, study NLST, "
    "pathology images), then run advmil prepare"
)
TCGA_ACCESS = (
    "slides of TCGA are public: download the diagnostic slides of the project from the GDC data portal "
    "(portal.gdc.cancer.gov) by the names of pathology_id, then run advmil prepare"
)


def check_run_data(config: Config, checked: set[tuple[str, ...]] | None = None) -> list[str]:
    """Look for what would stop a run, reading table, split and every feature file.

    Parts that merely make metrics undefined, such as a test part without an event, are logged as warnings.

    Args:
        config: Resolved configuration.
        checked: Patients whose files were read before, for the runs of a grid; added to. Null reads all.

    Returns:
        One line for each problem, naming the file and what to do; empty when all is well.
    """
    problems: list[str] = []
    cohort = _attempt(lambda: read_cohort(Path(config.path_label)), problems)
    split = _attempt(lambda: read_split(split_path(config)), problems)
    if cohort is None:
        return problems
    if split is not None:
        _attempt(lambda: check_split(split, cohort), problems)
    source = _attempt(lambda: BagSource(config, cohort), problems)
    patients = _patients(cohort, split)
    if split is not None:
        parts = {name: tuple(p for p in ids if p in cohort.patients) for name, ids in split.parts.items()}
        for warning in fold_warnings(cohort, parts):
            logger.warning("%s: %s", split.path, warning.text)
    if source is None:
        return problems
    key = (config.bcb_mode, str(source.folder), str(config.path_cluster), config.feat_format, config.regions)
    key = (*key, config.bcb_dims, config.task)
    todo = [patient for patient in patients if checked is None or (*key, patient) not in checked]
    if checked is not None:
        checked.update((*key, patient) for patient in todo)
    if todo:
        problems += _of_files(source, cohort, todo)
    return problems


def _attempt(work: Callable[[], T], problems: list[str]) -> T | None:
    """Return what the work returns, or note the lines of its error."""
    try:
        return work()
    except DataError as error:
        problems += str(error).splitlines()
        return None


def _patients(cohort: Cohort, split: Split | None) -> list[str]:
    """Return the patients whose files are read: of the split, else of the table; those unknown are reported before."""
    if split is None:
        return list(cohort.patients)
    return [patient for ids in split.parts.values() for patient in ids if patient in cohort.patients]


def _of_files(source: BagSource, cohort: Cohort, patients: Iterable[str]) -> list[str]:
    """Return the problems of files; many missing ones in one line that says where the slides come from."""
    chosen = list(patients)
    lines = source.check(chosen)
    absent = [line for line in lines if line.endswith(MISSING)]
    if not absent:
        return lines
    slides = [slide for patient in chosen for slide in cohort.patients[patient].slides]
    missing = [slide for slide in slides if not source.slide_path(slide).is_file()]
    if len(absent) < MANY:
        return lines
    others = [line for line in lines if line not in set(absent)]
    summary = (
        f"{source.folder}: {len(missing)} of {len(slides)} slides of {cohort.path} have no file here "
        f"({shorten(missing)}): make their features by advmil prepare, or use a table and splits of the slides you have"
    )
    return [summary, *_access(missing), *others]


def _access(missing: list[str]) -> list[str]:
    """Say where missing slides can be had, as their names tell."""
    tcga = sum(slide.upper().startswith("TCGA-") for slide in missing)
    nlst = sum(slide.isdigit() or slide.upper().startswith("NLS") for slide in missing)
    return [*([TCGA_ACCESS] if tcga else []), *([NLST_ACCESS] if nlst else [])]
