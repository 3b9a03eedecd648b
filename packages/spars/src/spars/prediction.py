"""New volumes in, segmentations and probability maps out, in the files' own geometry.

The agent searches a volume and scores at most its budget of windows; with ``full`` all windows are scored and the
agent's description is used for grid and step alone. Written into the output folder: ``pred/<name>.nii.gz`` (uint8),
``prob/<name>.nii.gz`` (float32), ``cases/<name>.json``, ``predictions.csv`` and ``predict-report.json``.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medshared.batch import Outcome, Task, run_batch, write_batch_report
from medshared.files import read_json, sha256_file, write_json
from medshared.leases import Shard
from medshared.runs import run_logging
from medshared.tables import write_table
from medshared.volumes import is_volume_name, volume_stem, write_volume
from spars.config import GameConfig
from spars.data.layout import Case, natural_key
from spars.errors import DataError
from spars.postprocessing import find_lesions, postprocess, voxel_volume_ml

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spars.agent import Agent
    from spars.boards import CaseBoard
    from spars.game.scorers import NetworkScorer
    from spars.readout import Reading

logger = logging.getLogger(__name__)

COLUMNS = (
    *("case", "status", "tumour_ml", "lesions", "largest_lesion_ml", "windows", "windows_share", "moves"),
    *("rule", "threshold", "removed_ml", "seconds", "file", "message"),
)
# Keys of the training run that a search of new volumes shares unless it is told otherwise.
_OF_THE_RUN = ("spacing", "hu_window", "budget", "start_moves", "start_patience", "candidates", "temperature")
# Keys that the agent alone knows.
_OF_THE_AGENT = {"full_image_size": "grid", "window_size": "window", "step_size": "step"}
_SURE_OF_FILES = 3  # a folder of DICOM slices holds at least so many files that are no NIfTI


@dataclass(frozen=True)
class _Settings:
    """What the result of a volume depends on, besides the volume, the networks and the search."""

    full: bool
    largest_component: bool
    min_volume_ml: float


def predict(
    images: Sequence[Path],
    output: Path,
    *,
    agent: Path,
    classifier_weights: Path,
    reading: Path | None = None,
    full: bool = False,
    largest_component: bool = False,
    min_volume_ml: float = 0.0,
    overwrite: bool = False,
    jobs: int = 1,
    shard: Shard | None = None,
    **keys: Any,
) -> int:
    """Segment volumes; one that cannot be used is recorded and the others go on.

    Grid, window and step are those of the agent, the HU window is the classifier's. Budget, voxel size and habits of
    the search come from ``keys``, else from the ``config.yaml`` beside the agent, where there is one. What is complete,
    as checksums show, and was made from the same files with the same settings is not made again.

    Args:
        images: NIfTI files, folders of them, folders of DICOM slices, or folders of such folders.
        output: Folder of the results, created.
        agent: Weight file that ``spars train`` wrote, its description beside it.
        classifier_weights: Weight file of the classifier that scores windows.
        reading: How maps are read; null = ``reading.json`` beside the agent.
        full: Score all windows instead of searching.
        largest_component: Keep the largest lesion only.
        min_volume_ml: Lesions below it are dropped.
        overwrite: Make anew what is complete.
        jobs: Threads that read and write volumes; one searches at a time.
        shard: The part of the volumes that this process does; the table of all is written without one.
        keys: Of a `spars.config.GameConfig`: ``budget``, ``seed`` (each volume has its own, derived from it and its
            name), ``device``, ``segmentation_threshold`` (null = the reading's) and others.

    Returns:
        Exit code: 1 when a volume failed.

    Raises:
        DataError: No volumes, two of one name, settings out of range, or a reading that cannot be used.
        spars.errors.CheckpointError: Agent or classifier cannot be used, or are for different windows.
    """
    settings = _Settings(full, largest_component, min_volume_ml)
    postprocess(np.zeros((1, 1, 1), np.bool_), 1.0, min_volume_ml=min_volume_ml)  # refuses what is no volume
    cases = find_images(images, output)
    predictor = Predictor(agent, classifier_weights, reading, settings, keys)
    output.mkdir(parents=True, exist_ok=True)
    with run_logging("spars", output / "log.txt"):
        if full and predictor.config.segmentation_threshold is None:
            logger.warning("the threshold was chosen for the maps of a search, not for that of all windows")
        tasks = [predictor.task(case, output) for case in cases]
        outcomes = run_batch("predict", tasks, shard=shard, jobs=jobs, again=overwrite)
        if shard is not None and shard.count > 1:
            return write_batch_report(
                output / f"predict-report-{shard.index + 1}-of-{shard.count}.json", outcomes, shard
            )
        _write_table(output, cases, outcomes)
        code = write_batch_report(output / "predict-report.json", outcomes)
        failed = sum(outcome.status == "failed" for outcome in outcomes)
        write_json(output / "results.json", {"volumes": len(cases), "failed": failed, **predictor.said})
        return code


def agent_reading(agent: Path, reading: Path | None = None, threshold: float | None = None) -> Reading:
    """Return how maps are read.

    Args:
        agent: Weight file of the agent.
        reading: The file; null = ``reading.json`` beside the agent.
        threshold: In place of the file's.

    Raises:
        DataError: The file is missing or not what it should be.
    """
    from spars.readout import RULES, Reading
    from spars.training import READING_FILE, load_reading

    path = agent.parent / READING_FILE if reading is None else reading
    found = load_reading(path)
    if found.rule not in RULES or not 0 <= found.threshold <= 1:
        raise DataError(
            f"{path}: expected rule {', '.join(RULES)} and a threshold in [0, 1], found rule {found.rule!r} and "
            f"threshold {found.threshold}"
        )
    return found if threshold is None else Reading(found.rule, threshold)


# ---------------------------------------------------------------------- what to segment


def find_images(paths: Sequence[Path], output: Path) -> list[Case]:
    """Return the volumes of files and folders, those of a folder sorted naturally.

    Args:
        paths: NIfTI files (also such as are missing: each is an error of its own later), folders of volumes, folders
            of DICOM slices.
        output: Folder of the results, which is not searched.

    Raises:
        DataError: No volume there, or two of one name.
    """
    found: list[Case] = []
    for path in paths:
        if path.is_dir():
            found += _of_folder(path, output)
        else:
            found.append(Case(volume_stem(path), path))
    if not found:
        raise DataError("no images: give NIfTI files, a folder of them, or a folder of DICOM slices")
    known: dict[str, Path] = {}
    for case in found:
        if case.name in known:
            raise DataError(
                f"{known[case.name]} and {case.image} would both become {case.name}.nii.gz; rename one of them, or "
                "segment them into two folders"
            )
        known[case.name] = case.image
    return found


def _of_folder(folder: Path, output: Path) -> list[Case]:
    entries = [each for each in sorted(folder.iterdir()) if not each.name.startswith(".")]
    volumes = [each for each in entries if each.is_file() and is_volume_name(each.name)]
    series = [each for each in entries if each.is_dir() and each.resolve() != output.resolve()]
    series = [each for each in series if any(file.is_file() for file in each.iterdir())]
    slices = [each for each in entries if each.is_file() and each not in volumes]
    if not volumes and len(slices) >= _SURE_OF_FILES:
        return [Case(folder.resolve().name, folder)]
    if not volumes and not series:
        raise DataError(f"{folder}: no volumes (.nii, .nii.gz) and no DICOM slices in this folder")
    cases = [Case(volume_stem(each), each) for each in volumes]
    if not volumes:
        cases += [Case(each.name, each) for each in series]
    return sorted(cases, key=lambda case: natural_key(case.name))


# ---------------------------------------------------------------------- segmenting


class Predictor:
    """Agent and classifier, loaded once, that segment one volume after the other.

    Args:
        agent: Weight file.
        classifier_weights: Weight file.
        reading: How maps are read; null = ``reading.json`` beside the agent.
        settings: The rest.
        keys: Of a `spars.config.GameConfig`.

    Raises:
        spars.errors.CheckpointError: Agent or classifier cannot be used, or are for different windows.
    """

    def __init__(
        self,
        agent: Path,
        classifier_weights: Path,
        reading: Path | None,
        settings: _Settings,
        keys: Mapping[str, Any],
    ) -> None:
        from spars.agent import load_agent
        from spars.boards import load_scorer

        self.settings = settings
        self.agent: Agent = load_agent(agent)
        self.config = search_config(self.agent, agent, classifier_weights, keys)
        self.reading = agent_reading(agent, reading, self.config.segmentation_threshold)
        self.agent.temperature = self.config.temperature
        self.scorer: NetworkScorer = load_scorer(self.config)
        self._files = agent, classifier_weights
        # The agent's random numbers and the classifier's buffers serve one volume at a time.
        self._lock = threading.Lock()

    @cached_property
    def said(self) -> dict[str, Any]:
        """Everything but the volume that a result depends on."""
        keys = (*_OF_THE_AGENT, "target_size", "seed", *_OF_THE_RUN)
        return {
            "agent": sha256_file(self._files[0]),
            "classifier": sha256_file(self._files[1]),
            "reading": asdict(self.reading),
            **asdict(self.settings),
            **{key: getattr(self.config, key) for key in keys},
        }

    def task(self, case: Case, output: Path) -> Task:
        """Return the work on one volume for a batch."""
        from spars.data.cache import source_key

        def inputs() -> Mapping[str, Any]:
            if not case.image.exists():
                raise DataError(f"{case.image}: no such volume")
            return {"image": source_key([case.image], {}), **self.said}

        files = tuple(output / part / f"{case.name}.nii.gz" for part in ("prob", "pred"))
        record = output / "cases" / f"{case.name}.json"
        return Task(case.name, record, inputs, lambda: self._segment(case, output, record), beside=files)

    def _segment(self, case: Case, output: Path, record: Path) -> str:
        from spars.boards import load_board

        record.unlink(missing_ok=True)  # an earlier result does not count from here on
        started = time.perf_counter()
        board = load_board(self.config, case, self.scorer, lazy=True)
        with self._lock:
            probability, row = self._search(board)
        native = board.to_source(probability).astype(np.float32)
        affine = board.grid.source.affine
        ml = voxel_volume_ml(affine)
        raw = native > self.reading.threshold
        settings = self.settings
        mask = postprocess(
            raw, ml, largest_component=settings.largest_component, min_volume_ml=settings.min_volume_ml
        )
        write_volume(output / "prob" / f"{case.name}.nii.gz", native, affine)
        write_volume(output / "pred" / f"{case.name}.nii.gz", mask.astype(np.uint8), affine)
        lesions = find_lesions(mask).voxels
        row = {
            "case": case.name,
            "tumour_ml": int(mask.sum()) * ml,
            "lesions": len(lesions),
            "largest_lesion_ml": float(lesions.max(initial=0)) * ml,
            **row,
            "removed_ml": int(raw.sum() - mask.sum()) * ml,
            "seconds": time.perf_counter() - started,
            "file": str(case.image),
        }
        write_json(record, row)
        return f"{row['tumour_ml']:.2f} ml tumour, {row['windows_share']:.0%} of the windows scored"

    def _search(self, board: CaseBoard) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Return the map on the grid, and what it cost."""
        from medshared.gpu import derive_seed
        from spars.exploration import search, search_settings
        from spars.readout import read_map

        table, lattice = board.table, board.table.lattice
        moves = None
        if self.settings.full:
            seen = np.ones(len(lattice), np.bool_)
            table.batch = self.config.table_batch  # a lazy table scores one window at a time
            table.full()
        else:
            found = search(
                self.agent,
                board.grid.image,
                table.lookup,
                search_settings(self.config, lattice),
                seed=derive_seed(self.config.seed, "search", board.name),
            )
            seen, moves = found.seen[0], int(found.moves[0])
        probability = read_map(lattice, table.scores.reshape(-1), seen, self.reading.rule)
        row = {
            "windows": int(seen.sum()),
            "windows_share": float(seen.mean()),
            "moves": moves,
            "rule": self.reading.rule,
            "threshold": self.reading.threshold,
        }
        return probability, row


def search_config(
    agent: Agent, agent_path: Path, classifier_weights: Path, keys: Mapping[str, Any]
) -> GameConfig:
    """Return the resolved configuration under which an agent searches new volumes.

    Args:
        agent: The agent.
        agent_path: Its weight file; a ``config.yaml`` beside it gives what ``keys`` leave open.
        classifier_weights: Weight file; its description gives HU window and input size.
        keys: Of a `GameConfig`.

    Raises:
        DataError: The agent, its run, the classifier and the keys disagree, or a key is wrong.
    """
    from spars.models.build import meta_path, read_meta

    for key, name in _OF_THE_AGENT.items():
        mine, given = getattr(agent.meta, name), keys.get(key)
        if given is not None and np.any(np.not_equal(given, mine)):
            raise DataError(
                f"{agent_path}: was trained with {key} {mine}, asked for {given}; leave {key} out"
            )
    beside = agent_path.parent / "config.yaml"
    used = {**_run_keys(beside), **{key: value for key, value in keys.items() if value is not None}}
    if meta_path(classifier_weights).is_file():
        meta = read_meta(meta_path(classifier_weights))
        mine = used.get("hu_window")
        if mine is not None and meta.hu_window is not None and tuple(mine) != meta.hu_window:
            raise DataError(
                f"{classifier_weights}: trained with hu_window {list(meta.hu_window)}, but {agent_path.name} was "
                f"trained with {list(mine)}; give the classifier that the agent was trained with"
            )
        used |= {"hu_window": meta.hu_window or mine, "target_size": meta.target_size}
    used |= {key: getattr(agent.meta, name) for key, name in _OF_THE_AGENT.items()}
    used |= {"classifier_weights": classifier_weights, "table": "lazy"}
    config = GameConfig(**used).resolved()
    if config.mode != "standard":
        raise DataError(f"an agent searches new volumes in mode standard, found mode {config.mode}")
    if not config.budget:
        raise DataError("budget is a share of the windows, above 0 and at most 1, found 0")
    return config


def _run_keys(path: Path) -> dict[str, Any]:
    """Return what the agent's training run says of its volumes and searches."""
    from medshared.configuration import load_yaml_or_json

    if not path.is_file():
        return {}
    try:
        found = load_yaml_or_json(path)
        keys = {key: found[key] for key in (*_OF_THE_RUN, "target_size") if found.get(key) is not None}
        GameConfig(**keys)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{path}: cannot be used as the configuration of a training run ({error})") from error
    return keys


# ---------------------------------------------------------------------- the table


def _write_table(output: Path, cases: Sequence[Case], outcomes: Sequence[Outcome]) -> None:
    import pandas as pd

    rows = []
    for case, outcome in zip(cases, outcomes, strict=True):
        row: dict[str, Any] = dict.fromkeys(COLUMNS)
        if outcome.status in ("done", "skipped"):
            row |= read_json(output / "cases" / f"{case.name}.json")
            rows.append({**row, "status": "done"})
        else:
            told = {"status": outcome.status, "file": str(case.image), "message": outcome.message}
            rows.append({**row, "case": case.name, **told})
    # As objects: a column with gaps keeps its whole numbers.
    write_table(output / "predictions.csv", pd.DataFrame(rows, columns=list(COLUMNS), dtype=object))
