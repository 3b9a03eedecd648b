"""CLAM's preset and process-list files: parameters of each slide, and what became of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advmil.errors import DataError
from medshared.slides import CLAM_PRESETS, ClamPatching, ClamSegmentation

if TYPE_CHECKING:
    import pandas as pd

_SEGMENTATION = ("seg_level", "sthresh", "mthresh", "close", "use_otsu")
_FILTER = ("a_t", "a_h", "max_n_holes")
_VIEW = ("vis_level", "line_thickness")
_CHOICE = ("keep_ids", "exclude_ids")
_PATCHING = ("use_padding", "contour_fn")
PRESET_COLUMNS = (*_SEGMENTATION, *_FILTER, *_VIEW, "white_thresh", "black_thresh", *_PATCHING, *_CHOICE)
LIST_COLUMNS = ("slide_id", "process", "status", *_SEGMENTATION, *_CHOICE, *_FILTER, *_VIEW, *_PATCHING)
PRESETS = {**CLAM_PRESETS, "new-tcga": CLAM_PRESETS["nlst"]}
LINE_THICKNESS = {
    "default": 250,
    "bwh_biopsy": 50,
    "bwh_resection": 150,
    "tcga": 100,
    "nlst": 80,
    "new-tcga": 100,
}
INTEGERS = ("seg_level", "sthresh", "mthresh", "close", "max_n_holes", "vis_level", "line_thickness")
NUMBERS = ("a_t", "a_h", "spacing_um")
FLAGS = ("use_otsu", "use_padding")
SEGMENTATION_FIELDS = tuple(f.name for f in dataclasses.fields(ClamSegmentation))


@dataclass(frozen=True)
class SlideParameters:
    """Parameters of one slide.

    Attributes:
        segmentation: CLAM's parameters of the tissue.
        use_padding: Let patches reach beyond the slide.
        contour_fn: Which points of a patch must lie in tissue.
        vis_level: Level of the mask picture; −1 chooses one. Only kept for the list: pictures are sized in pixels.
        line_thickness: Of the mask picture, in level-0 pixels.
        spacing_um: µm per pixel in place of what the slide says; null = as it says.
    """

    segmentation: ClamSegmentation = field(default_factory=ClamSegmentation)
    use_padding: bool = True
    contour_fn: str = "four_pt"
    vis_level: int = -1
    line_thickness: int = 250
    spacing_um: float | None = None

    def patching(self, patch_size: int, step_size: int, patch_level: int) -> ClamPatching:
        """Return CLAM's parameters of patching."""
        return ClamPatching(patch_size, step_size, patch_level, self.use_padding, self.contour_fn)  # type: ignore[arg-type]

    def cells(self) -> dict[str, Any]:
        """Return the parameters as cells of a process list."""
        cells = {name: getattr(self.segmentation, name) for name in SEGMENTATION_FIELDS}
        for name in _CHOICE:
            cells[name] = ",".join(str(i) for i in cells[name]) or "none"
        cells |= {
            "use_padding": self.use_padding,
            "contour_fn": self.contour_fn,
            "vis_level": self.vis_level,
            "line_thickness": self.line_thickness,
        }
        return cells


@dataclass(frozen=True)
class ListedSlide:
    """One row of a process list.

    Attributes:
        slide_id: File name with extension.
        parameters: The slide's own.
        process: Whether it is to be done.
    """

    slide_id: str
    parameters: SlideParameters
    process: bool = True


def _is_empty(value: Any) -> bool:
    return value is None or str(value).strip() == "" or str(value).lower() == "nan"


def _parse(path: Path, row: str, name: str, value: Any) -> Any:
    """Return a cell's value.

    Raises:
        DataError: Naming file, row and column.
    """
    text = str(value).strip()
    try:
        if name in INTEGERS:
            number = float(text)
            if not number.is_integer():
                raise ValueError("a whole number")
            return int(number)
        if name in NUMBERS:
            return float(text)
        if name in FLAGS:
            if text.lower() not in ("true", "false", "0", "1", "0.0", "1.0"):
                raise ValueError("True or False")
            return text.lower() in ("true", "1", "1.0")
        if name in _CHOICE:
            return () if text.lower() == "none" else tuple(int(part) for part in text.split(","))
    except ValueError as error:
        kind = "a number" if name in NUMBERS + INTEGERS else str(error)
        raise DataError(f"{path}: {row}, column {name!r}: expected {kind}, found {text!r}") from error
    return text


def with_cells(base: SlideParameters, cells: Mapping[str, Any], path: Path, row: str) -> SlideParameters:
    """Return parameters in which the non-empty cells of a row win over ``base``.

    Args:
        base: Defaults.
        cells: Column → text; unknown columns are left alone.
        path: For messages.
        row: For messages.

    Raises:
        DataError: A cell that cannot be used, with file, row and column.
    """
    values = {name: _parse(path, row, name, value) for name, value in cells.items() if not _is_empty(value)}
    own = {f.name for f in dataclasses.fields(SlideParameters)} - {"segmentation"}
    try:
        segmentation = dataclasses.replace(
            base.segmentation, **{k: v for k, v in values.items() if k in SEGMENTATION_FIELDS}
        )
        changed = dataclasses.replace(
            base, segmentation=segmentation, **{k: v for k, v in values.items() if k in own}
        )
        changed.patching(256, 256, 0)  # checks contour_fn
    except ValueError as error:
        raise DataError(f"{path}: {row}: {error}") from error
    return changed


def load_preset(preset: str | None, folder: Path | None = None) -> SlideParameters:
    """Return the parameters of a preset.

    Args:
        preset: One of :data:`PRESETS`, or a CSV file in CLAM's form; ``.csv`` after a known name is ignored. Null
            is ``default``.
        folder: Where a CSV file of that name may lie as well.

    Raises:
        DataError: No such preset, or a file that cannot be used.
    """
    name = "default" if preset is None else preset
    path = next(
        (p for p in (Path(name), (folder or Path()) / name) if p.suffix == ".csv" and p.is_file()), None
    )
    if path is None:
        known = Path(name).name.removesuffix(".csv")
        if known not in PRESETS:
            raise DataError(
                f"preset {name!r}: expected one of {', '.join(PRESETS)}, or a CSV file of CLAM's form"
            )
        return SlideParameters(PRESETS[known], line_thickness=LINE_THICKNESS[known])
    frame = _read(path)
    unknown = sorted(set(frame.columns) - set(PRESET_COLUMNS))
    if unknown or len(frame) != 1:
        raise DataError(
            f"{path}: expected one row with columns of {', '.join(PRESET_COLUMNS)}; found {len(frame)} rows"
            + (f" and the unknown columns {', '.join(unknown)}" if unknown else "")
        )
    return with_cells(SlideParameters(), frame.iloc[0].to_dict(), path, "row 2")


def _read(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a CSV table ({error})") from error


def read_process_list(path: Path, defaults: SlideParameters) -> list[ListedSlide]:
    """Read a process list; rows with ``process`` 0 are kept and marked.

    Args:
        path: CSV file.
        defaults: For empty cells and missing columns.

    Raises:
        DataError: No ``slide_id``, a slide listed twice, or a cell that cannot be used.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such process list")
    frame = _read(path)
    if "slide_id" not in frame.columns:
        raise DataError(f"{path}: expected a column 'slide_id', found {', '.join(frame.columns)}")
    doubled = sorted(set(frame["slide_id"][frame["slide_id"].duplicated()]))
    if doubled:
        raise DataError(f"{path}: slides listed more than once: {', '.join(doubled[:5])}")
    listed = []
    for number, cells in enumerate(frame.to_dict("records"), start=2):
        row = f"row {number}"
        wanted = str(cells.pop("process", "1")).strip() not in ("0", "0.0")
        slide = str(cells.pop("slide_id"))
        cells.pop("status", None)
        own = {str(key): value for key, value in cells.items()}
        listed.append(ListedSlide(slide, with_cells(defaults, own, path, row), wanted))
    return listed


def read_status(path: Path) -> dict[str, str]:
    """Return the status of each slide of an earlier list; nothing when there is none or it cannot be read."""
    try:
        frame = _read(path)
    except (OSError, DataError):
        return {}
    if not {"slide_id", "status"} <= set(frame.columns):
        return {}
    return {
        slide: word for slide, word in zip(frame["slide_id"], frame["status"], strict=True) if word != "tbp"
    }


def write_process_list(
    path: Path, slides: Sequence[ListedSlide], status: Mapping[str, str], *, with_tissue: bool = True
) -> Path:
    """Write ``process_list_autogen.csv``.

    Args:
        path: The file.
        slides: All slides.
        status: Slide id → ``processed``, ``already_exist``, ``failed_seg`` or ``failed``; others are ``tbp``.
        with_tissue: Whether CLAM's parameters of the tissue were used; their cells are empty if not.
    """
    import pandas as pd

    from medshared.tables import write_table

    rows = []
    for slide in slides:
        done = status.get(slide.slide_id, "tbp")
        cells = slide.parameters.cells()
        if not with_tissue:
            cells |= dict.fromkeys(SEGMENTATION_FIELDS, "")
        process = int(done == "tbp" and slide.process)
        rows.append({"slide_id": slide.slide_id, "process": process, "status": done} | cells)
    frame = pd.DataFrame(rows, columns=list(LIST_COLUMNS))
    if any(slide.parameters.spacing_um is not None for slide in slides):
        frame["spacing_um"] = [slide.parameters.spacing_um for slide in slides]
    return write_table(path, frame)
