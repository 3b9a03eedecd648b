"""The drawn images are written in the layouts of the papers' data sets."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from aespa.synthetic import draw_sample, make_demo_data, write_lidc
from aespa.synthetic_drawing import image_rng


def read(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_lidc_has_the_original_layout_and_slices_to_leave_out(tmp_path):
    folder = write_lidc(tmp_path / "LIDC", 10, 4, seed=3)
    images = sorted(folder.glob("train/images/*/*.png"))
    assert len(images) == 11
    assert len(sorted(folder.glob("test/images/*/*.png"))) == 4
    assert len(sorted(folder.glob("*/gt/*/*_l[0-3].png"))) == 4 * 15
    empty = [i for i in images if not read(folder / "train/gt" / i.parent.name / f"{i.stem}_l1.png").any()]
    assert len(empty) == 1
    train, test = ({p.name for p in (folder / s / "gt").iterdir()} for s in ("train", "test"))
    assert train
    assert not train & test


def test_lidc_files_hold_what_was_drawn(tmp_path):
    folder = make_demo_data(tmp_path, "LIDC", 2, 0, seed=3)
    drawn = draw_sample(image_rng(3, 0, 1), 180)
    pixels = read(folder / "train/images/LIDC-IDRI-0001/z-105.0_c0.png")
    assert pixels.dtype == np.uint8
    assert np.abs(pixels / 255 - drawn.image).max() <= 0.5 / 255 + 1e-6
    for rater in range(4):
        mask = read(folder / f"train/gt/LIDC-IDRI-0001/z-105.0_c0_l{rater}.png")
        assert np.array_equal(mask, drawn.masks[rater] * np.uint8(255))


def test_unknown_data_sets_are_refused(tmp_path):
    with pytest.raises(ValueError, match="found 'lidc'"):
        make_demo_data(tmp_path, "lidc", 1, 1, seed=0)
