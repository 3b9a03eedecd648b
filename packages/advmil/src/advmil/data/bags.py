"""Bags of patients: the features of all their slides, with cluster numbers or edges where a backbone needs them."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from advmil.config import ADVERSARIAL_TASKS, Config
from advmil.data.graphs import SlideGraph, join_graphs, load_graph
from advmil.data.regions import n_regions, regroup_by_coordinates, regroup_plainly, typical_step
from advmil.data.tables import Cohort, shorten
from advmil.errors import DataError
from medshared.bags import BagError, PatchBag, check_uniform, read_bag

N_CLUSTERS = 8


class BagInput(NamedTuple):
    """What a backbone takes.

    Attributes:
        x: Features of all patches of a patient, float32 ``[1, N, c]``.
        extra: Cluster numbers int64 ``[N]``, edges int64 ``[2, E]``, or null, by backbone.
    """

    x: Tensor
    extra: Tensor | None


class BagLayout(NamedTuple):
    """Where the rows of a bag come from.

    Attributes:
        slides: Slides of the patient, in order.
        slide_index: Position in ``slides`` of every row, int64 ``[N]``.
        row: Row in the slide's own file, int64 ``[N]``.
        coordinates: Top left corners in the unit of the slide's file (level-0 pixels, µm for STAMP), float64
            ``[N, 2]``; null where a slide's file has none.
    """

    slides: tuple[str, ...]
    slide_index: np.ndarray
    row: np.ndarray
    coordinates: np.ndarray | None


def needs_regions(config: Config) -> bool:
    """Whether rows are taken 16 at a time: by the backbone ``patch`` and by every discriminator."""
    return config.bcb_mode == "patch" or config.task in ADVERSARIAL_TASKS


class BagSource:
    """Reads the bags of patients and keeps the recently used ones in memory.

    Args:
        config: ``bcb_mode``, ``path_patch``, ``path_graph``, ``path_cluster``, ``feat_format``, ``regions``,
            ``cache_features_gb`` and ``num_workers`` are used.
        cohort: Slides of the patients.

    Raises:
        DataError: When the folder that the backbone needs is not set or not there, or ``regions`` does not
            suit the backbone.
    """

    def __init__(self, config: Config, cohort: Cohort) -> None:
        self.config, self.cohort = config, cohort
        self.limit_bytes = int(config.cache_features_gb * 2**30)
        self.cached_bytes = 0
        self._cache: OrderedDict[str, BagInput] = OrderedDict()
        self._lock = threading.Lock()
        key = "path_graph" if config.bcb_mode == "graph" else "path_patch"
        self.folder = self._folder(key)
        self._clusters = self._folder("path_cluster") if config.bcb_mode == "cluster" else None
        if config.bcb_mode == "graph" and config.regions != "consecutive":
            raise DataError(
                f"regions: {config.regions} does not suit the backbone graph, whose edges name the rows of a slide: "
                "make the graphs of features whose rows are regions, and set regions: consecutive"
            )

    def _folder(self, key: str) -> Path:
        value = getattr(self.config, key)
        if not value:
            raise DataError(f"{key} is not set: the backbone {self.config.bcb_mode} needs it")
        folder = Path(value)
        if not folder.is_dir():
            raise DataError(f"{key}: {folder} is no folder")
        return folder

    def slide_path(self, slide: str) -> Path:
        """Return the file of a slide's features, or of its graph."""
        suffix = "pt" if self.config.bcb_mode == "graph" else self.config.feat_format
        return self.folder / f"{slide}.{suffix}"

    # --- one patient

    def load(self, patient_id: str) -> BagInput:
        """Return the bag of a patient, from memory or from disk.

        Args:
            patient_id: A patient of the table.

        Returns:
            The bag, rows of the slides in the order of the table.

        Raises:
            DataError: Naming the patient, the file and what is wrong.
        """
        with self._lock:
            bag = self._cache.get(patient_id)
            if bag is not None:
                self._cache.move_to_end(patient_id)
                return bag
        bag = self._read(patient_id)
        size = _n_bytes(bag)
        with self._lock:
            if size <= self.limit_bytes and patient_id not in self._cache:
                self._cache[patient_id] = bag
                self.cached_bytes += size
                while self.cached_bytes > self.limit_bytes:
                    self.cached_bytes -= _n_bytes(self._cache.popitem(last=False)[1])
        return bag

    def iterate(self, patients: Sequence[str]) -> Iterator[tuple[str, BagInput]]:
        """Yield the bags of patients in order, reading up to ``num_workers`` bags ahead in threads.

        Args:
            patients: Patients of the table.

        Yields:
            Patient and bag.

        Raises:
            DataError: As for `load`, when the turn of the patient comes.
        """
        ahead = self.config.num_workers
        if ahead == 0:
            for patient in patients:
                yield patient, self.load(patient)
            return
        pool = ThreadPoolExecutor(min(ahead, 8), thread_name_prefix="bags")
        try:
            waiting: deque[tuple[str, Future[BagInput]]] = deque()
            for patient in patients:
                waiting.append((patient, pool.submit(self.load, patient)))
                if len(waiting) > ahead:
                    done, future = waiting.popleft()
                    yield done, future.result()
            while waiting:
                done, future = waiting.popleft()
                yield done, future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _slides(self, patient_id: str) -> tuple[str, ...]:
        patient = self.cohort.patients.get(patient_id)
        if patient is None:
            raise DataError(
                f"patient {patient_id} is not in {self.cohort.path}: use the table the split was made for"
            )
        return patient.slides

    def _read(self, patient_id: str) -> BagInput:
        slides = self._slides(patient_id)
        if self.config.bcb_mode == "graph":
            graph = join_graphs([self._graph(patient_id, slide) for slide in slides])
            return BagInput(graph.x.unsqueeze(0), graph.edge_index)
        return self._join(patient_id, [self._bag(patient_id, slide) for slide in slides])

    def _join(self, patient_id: str, bags: Sequence[PatchBag]) -> BagInput:
        rows = [self._rows(patient_id, bag) for bag in bags]
        parts = [
            bag.features if row is None else bag.features[row] for bag, row in zip(bags, rows, strict=True)
        ]
        features = parts[0] if len(parts) == 1 else np.concatenate(parts)
        x = torch.from_numpy(np.asarray(features, dtype=np.float32)).unsqueeze(0)
        if self._clusters is None:
            return BagInput(x, None)
        clusters = self._cluster_numbers(patient_id, [len(bag.features) for bag in bags])
        starts = np.cumsum([0] + [len(bag.features) for bag in bags])
        order = [
            start + (np.arange(len(bag.features)) if row is None else row)
            for start, bag, row in zip(starts, bags, rows, strict=False)
        ]
        return BagInput(x, torch.from_numpy(clusters[np.concatenate(order)]))

    def _bag(self, patient_id: str, slide: str) -> PatchBag:
        try:
            bag = read_bag(self.slide_path(slide))
        except BagError as error:
            raise DataError(f"patient {patient_id}: {error}") from error
        self._check_width(patient_id, slide, bag.features.shape[1])
        return bag

    def _graph(self, patient_id: str, slide: str) -> SlideGraph:
        try:
            graph = load_graph(self.slide_path(slide), trust=self.config.trust_pickles)
        except DataError as error:
            raise DataError(f"patient {patient_id}: {error}") from error
        self._check_width(patient_id, slide, graph.x.shape[1])
        if needs_regions(self.config):
            self._check_regions(patient_id, slide, len(graph.x))
        return graph

    def _check_width(self, patient_id: str, slide: str, width: int) -> None:
        expected = self.config.bcb_widths[0]
        if width != expected:
            raise DataError(
                f"patient {patient_id}: {self.slide_path(slide)} has {width} features a patch but bcb_dims starts with "
                f"{expected}: set bcb_dims: {width}-… (and disc_netx_in_dim: {width}), or use other features"
            )

    def _check_regions(self, patient_id: str, slide: str, n: int) -> None:
        try:
            n_regions(n)
        except DataError as error:
            raise DataError(f"patient {patient_id}: {self.slide_path(slide)}: {error}") from error

    def _rows(self, patient_id: str, bag: PatchBag) -> np.ndarray | None:
        """Return the order in which the rows of a slide form regions; null for that of the file."""
        n = len(bag.features)
        if not needs_regions(self.config):
            return None
        if self.config.regions == "consecutive":
            self._check_regions(patient_id, bag.path.stem, n)
            return None
        if self.config.regions == "plain":
            return regroup_plainly(n)
        xy, size = self._places(bag)
        if xy is None:
            raise DataError(
                f"patient {patient_id}: {bag.path} has no coordinates to make regions of: set feat_format: h5 and "
                "path_patch to the h5 files, keep h5_files beside pt_files, or set regions: plain"
            )
        if len(xy) != n:
            raise DataError(f"patient {patient_id}: {bag.path} has {n} patches but {len(xy)} coordinates")
        try:
            return regroup_by_coordinates(xy, size or typical_step(xy))
        except DataError as error:
            raise DataError(f"patient {patient_id}: {bag.path}: {error}") from error

    def _places(self, bag: PatchBag) -> tuple[np.ndarray | None, float | None]:
        """Return corners and size of the patches; for a pt file from the h5 file in ``h5_files`` beside it."""
        beside = bag.path.parent.parent / "h5_files" / f"{bag.path.stem}.h5"
        if bag.coordinates is None and bag.coordinates_um is None and beside.is_file():
            bag = read_bag(beside, check_finite=False)
        if bag.coordinates_um is not None:
            return bag.coordinates_um, bag.attributes.patch_size_um
        return bag.coordinates, bag.attributes.patch_size_level0

    def _cluster_numbers(self, patient_id: str, lengths: Sequence[int]) -> np.ndarray:
        assert self._clusters is not None  # noqa: S101 - only called for the backbone cluster
        path = self._clusters / f"{patient_id}.npy"
        try:
            clusters = np.load(path, allow_pickle=False)
        except FileNotFoundError as error:
            raise DataError(
                f"patient {patient_id}: {path}: no such file of clusters: run deepattnmisl_cluster"
            ) from error
        except (ValueError, EOFError, OSError) as error:
            raise DataError(
                f"patient {patient_id}: {path}: not a whole npy file of numbers: make it again"
            ) from error
        if clusters.ndim != 1 or len(clusters) != sum(lengths):
            raise DataError(
                f"patient {patient_id}: {path} has {clusters.size} cluster numbers but the slides have {sum(lengths)} "
                "patches: cluster again after making features"
            )
        if clusters.dtype.kind not in "iu" or clusters.min() < 0 or clusters.max() >= N_CLUSTERS:
            raise DataError(
                f"patient {patient_id}: {path}: cluster numbers must be whole, from 0 to {N_CLUSTERS - 1}"
            )
        return clusters.astype(np.int64)

    def layout(self, patient_id: str) -> BagLayout:
        """Return the slide, row and place of every row of a patient's bag, as `load` orders them.

        Args:
            patient_id: A patient of the table.

        Raises:
            DataError: As for `load`.
        """
        slides = self._slides(patient_id)
        rows: list[np.ndarray] = []
        places: list[np.ndarray | None] = []
        for slide in slides:
            if self.config.bcb_mode == "graph":
                graph = self._graph(patient_id, slide)
                row, xy = np.arange(len(graph.x)), graph.centroid
                places.append(None if xy is None else xy.double().numpy())
            else:
                bag = self._bag(patient_id, slide)
                found = self._rows(patient_id, bag)
                row = np.arange(len(bag.features)) if found is None else found
                corners = self._places(bag)[0]
                places.append(None if corners is None else corners[row].astype(np.float64))
            rows.append(row)
        known = [each for each in places if each is not None]
        index = np.repeat(np.arange(len(slides)), [len(row) for row in rows])
        joined = np.concatenate(known) if len(known) == len(slides) else None
        return BagLayout(slides, index, np.concatenate(rows), joined)

    # --- all patients

    def check(self, patients: Iterable[str]) -> list[str]:
        """Look for what would stop a run, reading every file once.

        Args:
            patients: Patients to be used.

        Returns:
            One text for each problem, empty when all is well: patients that the table lacks, missing and
            unreadable files, NaN, other widths, lengths that form no regions, clusters that do not fit,
            mixtures of encoders or spacings, and files of slides that the table lacks.
        """
        problems: list[str] = []
        infos = []
        for patient in patients:
            try:
                slides = self._slides(patient)
                missing = [slide for slide in slides if not self.slide_path(slide).is_file()]
                problems += [
                    f"patient {patient}: {self.slide_path(slide)}: no such file" for slide in missing
                ]
                if missing:
                    continue
                if self.config.bcb_mode == "graph":
                    self._read(patient)
                    continue
                bags = [self._bag(patient, slide) for slide in slides]
                infos += [bag.info for bag in bags]
                self._join(patient, bags)
            except DataError as error:
                problems.append(str(error))
        try:
            check_uniform(infos)
        except BagError as error:
            problems.append(str(error))
        known = set(self.cohort.slides["pathology_id"])
        suffix = self.slide_path("x").suffix
        unknown = sorted(path.stem for path in self.folder.glob(f"*{suffix}") if path.stem not in known)
        if unknown:
            problems.append(
                f"{self.folder} has {len(unknown)} slides without a patient in {self.cohort.path} "
                f"({shorten(unknown)}): they are not used"
            )
        return problems


def _n_bytes(bag: BagInput) -> int:
    return sum(each.numel() * each.element_size() for each in bag if each is not None)
