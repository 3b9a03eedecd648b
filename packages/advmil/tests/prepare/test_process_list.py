"""Process lists and presets."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from advmil.errors import DataError
from advmil.prepare.process_list import (
    LIST_COLUMNS,
    PRESET_COLUMNS,
    ListedSlide,
    SlideParameters,
    load_preset,
    read_process_list,
    read_status,
    write_process_list,
)
from medshared.slides import ClamSegmentation


def table(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "expected", "thickness"),
    [
        (None, (8, 7, 4, 100, 16, 8), 250),
        ("bwh_biopsy", (15, 11, 2, 1, 1, 2), 50),
        ("bwh_resection.csv", (15, 11, 4, 100, 16, 8), 150),
        ("tcga.csv", (8, 7, 4, 16, 4, 8), 100),
        ("nlst", (8, 7, 4, 100, 16, 48), 80),
        ("new-tcga", (8, 7, 4, 100, 16, 48), 100),
    ],
)
def test_presets(name, expected, thickness):
    found = load_preset(name)
    s = found.segmentation
    assert (s.sthresh, s.mthresh, s.close, s.a_t, s.a_h, s.max_n_holes) == expected
    assert found.line_thickness == thickness
    assert (found.use_padding, found.contour_fn) == (True, "four_pt")


def test_preset_file(tmp_path: Path):
    values = "-1,11,5,3,True,50,2,9,-1,120,5,50,False,center,none,none"
    table(tmp_path / "mine.csv", ",".join(PRESET_COLUMNS[:5]) + "\n")  # columns alone
    header = (
        "seg_level,sthresh,mthresh,close,use_otsu,a_t,a_h,max_n_holes,vis_level,line_thickness,white_thresh,"
    )
    header += "black_thresh,use_padding,contour_fn,keep_ids,exclude_ids"
    assert set(header.split(",")) == set(PRESET_COLUMNS)
    table(tmp_path / "own.csv", f"{header}\n{values}\n")
    expected = ClamSegmentation(-1, 11, 5, 3, True, 50, 2, 9)
    for found in (load_preset(str(tmp_path / "own.csv")), load_preset("own.csv", tmp_path)):
        assert found.segmentation == expected
        assert (found.line_thickness, found.use_padding, found.contour_fn) == (120, False, "center")
    with pytest.raises(DataError, match=r"mine\.csv: expected one row .* found 0 rows"):
        load_preset(str(tmp_path / "mine.csv"))
    with pytest.raises(DataError, match="preset 'tgca': expected one of default, bwh_biopsy"):
        load_preset("tgca")
    table(tmp_path / "odd.csv", "sthresh,sharpness\n8,1\n")
    with pytest.raises(DataError, match="the unknown columns sharpness"):
        load_preset(str(tmp_path / "odd.csv"))


def test_own_parameters_win_and_empty_cells_do_not(tmp_path: Path):
    path = table(
        tmp_path / "list.csv",
        "slide_id,process,status,sthresh,a_t,keep_ids,use_padding,spacing_um\n"
        'a.svs,1,tbp,20,,"0,2",False,0.5\n'
        "b.svs,0,processed,,,,,\n"
        "c.svs,1.0,tbp,nan,3.5,none,,\n",
    )
    defaults = SlideParameters(ClamSegmentation(sthresh=9, a_t=16))
    a, b, c = read_process_list(path, defaults)
    assert (a.parameters.segmentation.sthresh, a.parameters.segmentation.a_t) == (20, 16)
    assert a.parameters.segmentation.keep_ids == (0, 2)
    assert (a.parameters.use_padding, a.parameters.spacing_um) == (False, 0.5)
    assert (a.process, b.process, c.process) == (True, False, True)
    assert b.parameters == defaults
    assert (c.parameters.segmentation.sthresh, c.parameters.segmentation.a_t) == (9, 3.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name\na.svs\n", r"expected a column 'slide_id', found name"),
        ("slide_id\na.svs\na.svs\n", r"slides listed more than once: a\.svs"),
        (
            "slide_id,sthresh\na.svs,8\nb.svs,8.5\n",
            r"row 3, column 'sthresh': expected a number, found '8\.5'",
        ),
        (
            "slide_id,use_otsu\na.svs,maybe\n",
            r"row 2, column 'use_otsu': expected True or False, found 'maybe'",
        ),
        ("slide_id,contour_fn\na.svs,five_pt\n", r"row 2: contour_fn must be one of four_pt"),
        ("slide_id,mthresh\na.svs,4\n", r"row 2: mthresh must be an odd number"),
        ("", r"not a CSV table"),
    ],
)
def test_bad_lists_name_the_cell(tmp_path: Path, text, message):
    with pytest.raises(DataError, match=rf"list\.csv: {message}"):
        read_process_list(table(tmp_path / "list.csv", text), SlideParameters())


def test_missing_list(tmp_path: Path):
    with pytest.raises(DataError, match=r"no\.csv: no such process list"):
        read_process_list(tmp_path / "no.csv", SlideParameters())


def test_written_lists_read_back(tmp_path: Path):
    own = SlideParameters(
        ClamSegmentation(sthresh=12, exclude_ids=(1, 3)), use_padding=False, spacing_um=0.25
    )
    slides = [
        ListedSlide("a.svs", own),
        ListedSlide("b.svs", SlideParameters()),
        ListedSlide("c.svs", own, False),
    ]
    path = write_process_list(tmp_path / "list.csv", slides, {"a.svs": "processed"})
    frame = pd.read_csv(path)
    assert tuple(frame.columns[: len(LIST_COLUMNS)]) == LIST_COLUMNS
    assert frame["process"].tolist() == [0, 1, 0]
    assert frame["status"].tolist() == ["processed", "tbp", "tbp"]
    assert read_status(path) == {"a.svs": "processed"}
    back = read_process_list(path, SlideParameters())
    assert [slide.parameters for slide in back] == [slide.parameters for slide in slides]


def test_columns_are_clams(tmp_path: Path):
    expected = (
        "slide_id,process,status,seg_level,sthresh,mthresh,close,use_otsu,keep_ids,exclude_ids,a_t,a_h,max_n_holes,"
        "vis_level,line_thickness,use_padding,contour_fn"
    )
    path = write_process_list(tmp_path / "list.csv", [ListedSlide("a.svs", SlideParameters())], {})
    assert path.read_text().splitlines()[0] == expected
    assert read_status(tmp_path / "absent.csv") == {}
