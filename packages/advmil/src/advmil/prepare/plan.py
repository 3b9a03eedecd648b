"""What to prepare and how, and where each result lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from advmil.errors import DataError
from advmil.prepare.options import DEFAULT_STEPS, SLIDE_SUFFIXES
from advmil.prepare.process_list import SlideParameters
from medshared.leases import Shard

PROCESS_LIST = "process_list_autogen.csv"


@dataclass
class Preparation:
    """What to prepare and how; :func:`advmil.prepare.pipeline.run` does it.

    Attributes:
        slides: Folder of slides.
        output: Receives ``tiles-l<level>-s<size>``, ``feat-…``, ``patch-…-cluster…-ids`` and ``wsigraph-…``.
        steps: Which of :data:`advmil.prepare.options.STEPS`.
        tissue: ``otsu`` or ``clam``.
        parameters: Defaults of every slide.
        process_list: CSV with parameters of single slides.
        patch_size: Edge of a patch in pixels of its level.
        step_size: Distance of patches; null = the patch size.
        patch_level: Level of the patches; of the big ones where ``regions`` is among the steps.
        spacing_um: µm per pixel of slides that do not say.
        slide_suffix: Only slides with this extension.
        table: Table of slides, for clusters.
        encoder: Name of the encoder.
        weights: File with its weights.
        weights_source: ``cache``, ``download`` or ``random``.
        features: :class:`advmil.prepare.features.FeatureSettings` as keyword arguments.
        transform: Name of a robustness transform.
        stain_template: Image to normalise colours to.
        seed: Of the transform.
        clusters: K of K-means.
        shard: Part of the slides.
        jobs: Threads of the steps without a network.
        again: Make finished outputs anew.
        device: Of the network.
    """

    slides: Path
    output: Path
    steps: Sequence[str] = DEFAULT_STEPS
    tissue: str = "otsu"
    parameters: SlideParameters = field(default_factory=SlideParameters)
    process_list: Path | None = None
    patch_size: int = 256
    step_size: int | None = None
    patch_level: int = 2
    spacing_um: float | None = None
    slide_suffix: str | None = None
    table: Path | None = None
    encoder: str = "resnet50_trunc"
    weights: Path | None = None
    weights_source: str = "cache"
    features: Mapping[str, Any] = field(default_factory=dict)
    transform: str | None = None
    stain_template: Path | None = None
    seed: int = 42
    clusters: int = 8
    shard: Shard | None = None
    jobs: int = 1
    again: bool = False
    device: str = "auto"

    @property
    def tiles(self) -> Path:
        """Folder of the patches that were cut."""
        return self.output / f"tiles-l{self.patch_level}-s{self.patch_size}"

    @property
    def with_regions(self) -> bool:
        """Whether the features are those of the small patches that big ones cover."""
        return "regions" in self.steps or (self.patch_level > 0 and self.small_tiles.is_dir())

    @property
    def small_tiles(self) -> Path:
        """Folder of the small patches."""
        return self.output / f"tiles-l{self.patch_level - 1}-s{self.patch_size}"

    @property
    def encoded_tiles(self) -> Path:
        """Folder of the patches that features are made of."""
        return self.small_tiles if self.with_regions else self.tiles

    @property
    def level(self) -> int:
        """Level of the patches that features are made of."""
        return self.patch_level - 1 if self.with_regions else self.patch_level

    @property
    def feature_folder(self) -> Path:
        """Folder of ``pt_files`` and ``h5_files``, named as the original's for its encoder."""
        name = "RN50-B" if self.encoder == "resnet50_trunc" else self.encoder.replace("/", "_")
        parts = [f"feat-l{self.level}-{name}"]
        parts += [self.transform] if self.transform else []
        parts += ["color_norm"] if self.stain_template else []
        return self.output / "-".join(parts)

    def check(self) -> None:
        """Refuse what cannot work before any slide is touched.

        Raises:
            DataError: Naming the flag.
        """
        if "regions" in self.steps and self.patch_level < 1:
            raise DataError(
                "--patch-level 0: the step regions needs a finer level below the big patches; use --patch-level 1 or "
                "more, or leave regions out by --steps segment patch features"
            )
        if "clusters" in self.steps and self.table is None:
            raise DataError("the step clusters needs --table, which says whose slides belong together")
        for name, value in (("--patch-size", self.patch_size), ("--step-size", self.step_size or 1)):
            if value < 1:
                raise DataError(f"{name} {value}: expected at least 1")
        self._check_sources()

    def _check_sources(self) -> None:
        """Refuse steps that would find nothing because an earlier one was never run."""
        features = self.feature_folder
        needs = {
            "patch": (("segment",), self.tiles / "contours", "*.geojson"),
            "regions": (("patch",), self.tiles / "patches", "*.h5"),
            "features": (("patch", "regions"), self.encoded_tiles / "patches", "*.h5"),
            "clusters": (("features",), features / "pt_files", "*.pt"),
            "graphs": (("features",), features / "h5_files", "*.h5"),
        }
        for step, (before, folder, pattern) in needs.items():
            if step in self.steps and not set(before) & set(self.steps) and not any(folder.glob(pattern)):
                raise DataError(
                    f"{folder}: no {pattern} here, which the step {step} needs; run {' and '.join(before)} first"
                )


@dataclass(frozen=True)
class SlideJob:
    """A slide that is to be done.

    Attributes:
        path: The file.
        parameters: The slide's own.
    """

    path: Path
    parameters: SlideParameters

    @property
    def stem(self) -> str:
        """Name of the slide in all outputs."""
        return self.path.stem


def find_slides(folder: Path, suffix: str | None = None) -> list[Path]:
    """Return the slides of a folder, sorted by name.

    Args:
        folder: The folder; those below it are not searched.
        suffix: Only slides with this extension; null = all that OpenSlide knows.

    Raises:
        DataError: No folder or no slide in it.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of slides")
    suffixes = (f".{suffix.lower().lstrip('.')}",) if suffix else SLIDE_SUFFIXES
    found = sorted(
        path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith(".")
    )
    if not found:
        raise DataError(f"{folder}: no slides here; expected files ending in {', '.join(suffixes)}")
    return found


def find_slide(folder: Path, stem: str) -> Path | None:
    """Return the slide of a name, or null when the folder has none."""
    files = (folder / f"{stem}{case(suffix)}" for suffix in SLIDE_SUFFIXES for case in (str.lower, str.upper))
    return next((path for path in files if path.is_file()), None)


def refuse_doubles(slides: Sequence[Path]) -> None:
    """Refuse slides whose outputs would have the same name.

    Raises:
        DataError: Naming them.
    """
    stems = [path.stem for path in slides]
    doubled = [path.name for path in slides if stems.count(path.stem) > 1]
    if doubled:
        raise DataError(
            f"{slides[0].parent}: several slides of one name ({', '.join(doubled[:6])}); choose one by --slide-ext or "
            "a process list"
        )


def stamp(path: Path) -> list[float]:
    """Return size and time of a file: enough to notice another one without reading gigabytes."""
    state = path.stat()
    return [state.st_size, round(state.st_mtime, 3)]
