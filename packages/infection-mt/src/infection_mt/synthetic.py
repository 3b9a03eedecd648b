"""Synthetic time-lapse stacks with known truth, written in the method's own two-folder layout.

A mock field fills with elongated cells, so time can be read from their number. In an infected field growth
stops after the onset and cells turn round and bright one after the other, so the class can be read from the
shapes and the time from the share of rounded cells. Every page is scaled to 8 bit on its own later, so
neither brightness nor gain carries information. Hours run over a 48 h experiment.

Variants for tests of evaluation pitfalls and of broken input:

- ``confounded``: the infected well has an illumination ramp; on the second plate (``plate2``) the mock well.
- ``overlap``: neighbouring positions of a well show the same cells in ``overlap_fraction`` of their width.
- ``hot_pixel``, ``nan``, ``truncated``, ``page_counts``: faults in some files (``SyntheticData.faulty``).
- ``mock_vs_mock``: both folders hold mock cells, so no model can do better than chance on new positions.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tifffile

from medshared.files import atomic_open, write_text

Variant = Literal[
    "plain", "confounded", "overlap", "hot_pixel", "nan", "truncated", "page_counts", "mock_vs_mock"
]
EXPERIMENT_HOURS = 48.0
FOLDERS = {"infected": "Infected_well", "uninfected": "Uninfected_well"}
_FIRST_WELL = {"infected": ("b", 2), "uninfected": ("c", 4)}
_COUNTS_PER_UNIT = 12000.0  # grey values of a cell of amplitude 1 at gain 1
_READ_NOISE = 120.0  # grey values, standard deviation
_LAST_BIRTH_AFTER_ONSET = 0.05  # of the experiment; an infected field stops growing then


@dataclass(frozen=True)
class SyntheticParams:
    """What to draw.

    Attributes:
        stacks_per_class: Positions of each class on each plate.
        wells_per_class: Wells over which the positions of a class are dealt.
        n_pages: Time points of a stack.
        size: Side of a page in pixels.
        frames_per_hour: Sampling rate; the default of 12 pages then covers hours 0 to 44.
        onset_hour: Hour from which infected cells may die.
        seed: Every drawn number follows from it.
        n_cells: Cells of a field that could exist at hour 48.
        cell_scale: Size of a cell; at 1 its short axis is 2.5 % of the field.
        stratified: Spread births and deaths evenly; plain uniform draws make time harder to read.
        gradient: Illumination ramp from left (0) to right, in units of a cell's amplitude, in all stacks.
        variant: See the module docstring.
        confounding_gradient: Strength of the ramp of ``variant="confounded"``.
        overlap_fraction: Shared part of neighbouring fields of ``variant="overlap"``.
        compression: TIFF compression by tifffile's name, for example ``"lzw"``.
    """

    stacks_per_class: int = 30
    wells_per_class: int = 1
    n_pages: int = 12
    size: int = 64
    frames_per_hour: float = 0.25
    onset_hour: float = 1.0
    seed: int = 0
    n_cells: int = 40
    cell_scale: float = 1.0
    stratified: bool = True
    gradient: float = 0.0
    variant: Variant = "plain"
    confounding_gradient: float = 0.5
    overlap_fraction: float = 0.05
    compression: str | None = None

    def __post_init__(self) -> None:
        for name in ("stacks_per_class", "wells_per_class", "n_pages", "n_cells"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}")
        if self.size < 8:
            raise ValueError(f"size must be at least 8 pixels, found {self.size}")
        if self.frames_per_hour <= 0:
            raise ValueError(f"frames_per_hour must be above 0, found {self.frames_per_hour}")
        if not 0 < self.overlap_fraction < 1:
            raise ValueError(f"overlap_fraction must lie between 0 and 1, found {self.overlap_fraction}")


@dataclass(frozen=True)
class FrameTruth:
    """What one page shows: ``infected`` is the truth, ``condition`` the folder."""

    file: str
    plate: str
    well: str
    position: str
    condition: str
    infected: bool
    frame_index: int
    hours: float
    healthy: int
    rounded: int


@dataclass(frozen=True)
class SyntheticData:
    """Where a generated data set lies.

    Attributes:
        folder: The root given to :func:`generate`.
        infected_dir: Folder of the first plate's infected stacks.
        uninfected_dir: The same for its mock stacks.
        plates: Plate name → (infected folder, uninfected folder).
        manifest: CSV of all stacks of all plates in the manifest layout.
        truth_path: CSV of :class:`FrameTruth` rows.
        truth: The same rows.
        faulty: Files that a fault variant made unusual.
    """

    folder: Path
    infected_dir: Path
    uninfected_dir: Path
    plates: dict[str, tuple[Path, Path]]
    manifest: Path
    truth_path: Path
    truth: tuple[FrameTruth, ...]
    faulty: tuple[Path, ...]


@dataclass(frozen=True)
class _Cells:
    """Cells of one field, all arrays of length n; positions and drift in pixels, times as share of 48 h."""

    x: np.ndarray
    y: np.ndarray
    drift_x: np.ndarray
    drift_y: np.ndarray
    angle: np.ndarray
    spin: np.ndarray
    birth: np.ndarray
    death_delay: np.ndarray

    def shifted(self, dx: float) -> _Cells:
        return _Cells(**{**self.__dict__, "x": self.x + dx})

    @staticmethod
    def joined(parts: list[_Cells]) -> _Cells:
        return _Cells(
            **{name: np.concatenate([getattr(p, name) for p in parts]) for name in parts[0].__dict__}
        )


@dataclass(frozen=True)
class _Field:
    """One stack to be drawn."""

    plate: str
    plate_index: int
    condition: str
    infected: bool
    well: str
    well_index: int
    position: int
    path: Path
    gradient: float


def generate(folder: str | Path, params: SyntheticParams | None = None) -> SyntheticData:
    """Write a synthetic data set.

    Args:
        folder: Root folder; created when missing. Files of the same names are replaced.
        params: What to draw; the default is the 60-stack set of the acceptance level.

    Returns:
        The paths and the truth of every page.
    """
    params = params or SyntheticParams()
    root = Path(folder)
    plates = ["plate1", "plate2"] if params.variant == "confounded" else ["plate1"]
    folders = {
        plate: (_class_folder(root, plate, "infected"), _class_folder(root, plate, "uninfected"))
        for plate in plates
    }
    truth: list[FrameTruth] = []
    faulty: list[Path] = []
    fields = list(_fields(root, params, plates))
    for number, field in enumerate(fields):
        pages, rows = _draw_stack(field, params, root)
        if _is_faulty(number, params):
            faulty.append(field.path)
            pages = _with_fault(pages, params, _rng(params.seed, 9, number))
            rows = rows[: len(pages)]
        _write_stack(field.path, pages, params, cut=params.variant == "truncated" and field.path in faulty)
        truth.extend(rows)
    truth_path, manifest = root / "truth.csv", root / "manifest.csv"
    write_text(truth_path, _csv([row.__dict__ for row in truth]))
    write_text(manifest, _csv([_manifest_row(field, root, params) for field in fields]))
    infected_dir, uninfected_dir = folders["plate1"]
    return SyntheticData(
        root, infected_dir, uninfected_dir, folders, manifest, truth_path, tuple(truth), tuple(faulty)
    )


def _class_folder(root: Path, plate: str, condition: str) -> Path:
    base = root if plate == "plate1" else root / plate
    return base / FOLDERS[condition] / "no_labels"


def _rng(*entropy: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))


def _fields(root: Path, params: SyntheticParams, plates: list[str]) -> Iterator[_Field]:
    for plate_index, plate in enumerate(plates):
        for class_index, condition in enumerate(("infected", "uninfected")):
            row, first_column = _FIRST_WELL[condition]
            gradient = params.gradient
            if params.variant == "confounded" and class_index == plate_index:
                gradient += params.confounding_gradient
            for number in range(params.stacks_per_class):
                well_index, position = number % params.wells_per_class, number // params.wells_per_class + 1
                well = f"{row}{first_column + well_index}"
                name = f"synth_s5_{well}_p{position}_t0-{params.n_pages - 1}_ec.tiff"
                yield _Field(
                    plate=plate,
                    plate_index=plate_index,
                    condition=condition,
                    infected=condition == "infected" and params.variant != "mock_vs_mock",
                    well=well,
                    well_index=2 * well_index + class_index,
                    position=position,
                    path=_class_folder(root, plate, condition) / name,
                    gradient=gradient,
                )


def _draw_cells(field: _Field, position: int, params: SyntheticParams, width: float) -> _Cells:
    """Cells that belong to one position; neighbours draw the same ones again from the same numbers."""
    rng = _rng(params.seed, 1, field.plate_index, field.well_index, position)
    n = params.n_cells
    strata = (np.arange(n) + rng.random(n)) / n
    deaths = (rng.permutation(n) + rng.random(n)) / n
    if not params.stratified:
        strata, deaths = rng.random(n), rng.random(n)
    return _Cells(
        x=rng.uniform(0, width, n),
        y=rng.uniform(0, params.size, n),
        drift_x=rng.normal(0, 0.15, n),
        drift_y=rng.normal(0, 0.15, n),
        angle=rng.uniform(0, np.pi, n),
        spin=rng.normal(0, 0.03, n),
        birth=-0.35 + 1.35 * strata,
        death_delay=0.8 * deaths,
    )


def _field_cells(field: _Field, params: SyntheticParams) -> _Cells:
    if params.variant != "overlap":
        return _draw_cells(field, field.position, params, params.size)
    pitch = round(params.size * (1 - params.overlap_fraction))
    return _Cells.joined(
        [_draw_cells(field, field.position + k, params, pitch).shifted(k * pitch) for k in (-1, 0, 1)]
    )


def _draw_stack(field: _Field, params: SyntheticParams, root: Path) -> tuple[np.ndarray, list[FrameTruth]]:
    """Pages [T, size, size] uint16 and their truth."""
    cells = _field_cells(field, params)
    rng = _rng(params.seed, 2, field.plate_index, field.well_index, field.position)
    gain, background = rng.uniform(0.7, 1.3), rng.uniform(200, 900)
    side = params.size
    centre = (side - 1) / 2
    axis = np.arange(side, dtype=np.float32) - np.float32(centre)
    ys, xs = (grid.ravel() for grid in np.meshgrid(axis, axis, indexing="ij"))
    basis = np.stack([xs * xs, xs * ys, ys * ys, xs, ys, np.ones_like(xs)])
    ramp = (field.gradient * np.linspace(0, 1, side, dtype=np.float32))[None, :]
    pages = np.empty((params.n_pages, side, side), np.uint16)
    rows = []
    for t in range(params.n_pages):
        hours = t / params.frames_per_hour
        signal, healthy, rounded = _draw_page(cells, t, hours, field.infected, params, basis, centre)
        image = _COUNTS_PER_UNIT * gain * (signal.reshape(side, side) + ramp) + background
        image += _READ_NOISE * rng.standard_normal((side, side), dtype=np.float32)
        pages[t] = np.clip(image, 0, 65535)
        rows.append(
            FrameTruth(
                file=field.path.relative_to(root).as_posix(),
                plate=field.plate,
                well=field.well,
                position=str(field.position),
                condition=field.condition,
                infected=field.infected,
                frame_index=t,
                hours=hours,
                healthy=healthy,
                rounded=rounded,
            )
        )
    return pages, rows


def _draw_page(
    cells: _Cells,
    t: int,
    hours: float,
    infected: bool,
    params: SyntheticParams,
    basis: np.ndarray,
    centre: float,
) -> tuple[np.ndarray, int, int]:
    """Sum of a page's cells as flat float32, and the numbers of healthy and rounded cells in the field."""
    present = cells.birth <= hours / EXPERIMENT_HOURS
    since_death = np.full(cells.x.shape, -1.0)
    if infected:
        onset = params.onset_hour / EXPERIMENT_HOURS
        present &= cells.birth <= onset + _LAST_BIRTH_AFTER_ONSET
        since_death = hours / EXPERIMENT_HOURS - onset - cells.death_delay
    x, y = cells.x + t * cells.drift_x, cells.y + t * cells.drift_y
    margin = 0.15 * params.size
    near = present & (x > -margin) & (x < params.size + margin)
    is_round = since_death > 0
    inside = present & (x >= 0) & (x < params.size) & (y >= 0) & (y < params.size)
    scale = params.cell_scale * params.size / 96.0
    short = np.where(is_round, 1.6, 2.4) * scale
    long = np.where(is_round, 1.6, 2.4 * 2.2) * scale
    amplitude = np.where(is_round, 0.15 + np.exp(-3.0 * np.maximum(since_death, 0.0)), 0.45)
    angle = cells.angle + t * cells.spin
    coefficients = _exponent_coefficients(x - centre, y - centre, short, long, angle)[near]
    density = np.exp(coefficients.astype(np.float32) @ basis)
    signal = amplitude[near].astype(np.float32) @ density
    return signal, int((inside & ~is_round).sum()), int((inside & is_round).sum())


def _exponent_coefficients(
    x: np.ndarray, y: np.ndarray, short: np.ndarray, long: np.ndarray, angle: np.ndarray
) -> np.ndarray:
    """Rotated Gaussians as forms [n, 6] over (x², xy, y², x, y, 1): a page is then one matrix product."""
    c, s = np.cos(angle), np.sin(angle)
    p = -0.5 * (c**2 / long**2 + s**2 / short**2)
    q = -(c * s) * (1 / long**2 - 1 / short**2)
    r = -0.5 * (s**2 / long**2 + c**2 / short**2)
    return np.stack(
        [p, q, r, -2 * p * x - q * y, -2 * r * y - q * x, p * x**2 + q * x * y + r * y**2], axis=1
    )


def _is_faulty(number: int, params: SyntheticParams) -> bool:
    """Hot pixels and page counts concern every second stack, broken files only the second one."""
    if params.variant in ("hot_pixel", "page_counts"):
        return number % 2 == 1
    return params.variant in ("nan", "truncated") and number == min(1, 2 * params.stacks_per_class - 1)


def _with_fault(pages: np.ndarray, params: SyntheticParams, rng: np.random.Generator) -> np.ndarray:
    if params.variant == "hot_pixel":
        y, x = rng.integers(0, params.size, 2)
        pages[:, y, x] = 65535
    elif params.variant == "nan":
        pages = pages.astype(np.float32)
        pages[len(pages) // 2, : max(1, params.size // 8), 0] = np.nan
    elif params.variant == "page_counts":
        pages = pages[: max(1, params.n_pages - 1 - int(rng.integers(0, max(1, params.n_pages // 2))))]
    return pages


def _write_stack(path: Path, pages: np.ndarray, params: SyntheticParams, *, cut: bool) -> None:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pages, photometric="minisblack", compression=params.compression)
    content = buffer.getvalue()
    with atomic_open(path, "wb") as file:
        file.write(content[: int(len(content) * 0.6)] if cut else content)


def _manifest_row(field: _Field, root: Path, params: SyntheticParams) -> dict[str, object]:
    label = int(field.condition == "infected")
    # In mock_vs_mock the label still follows the folder: it is what a model is asked to learn, in vain.
    return {
        "file": field.path.relative_to(root).as_posix(),
        "condition": field.condition,
        "plate": field.plate,
        "well": field.well,
        "position": field.position,
        "onset_hour": params.onset_hour,
        "label": label,
    }


def _csv(rows: list[dict[str, object]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
