"""Cups and discs of seven raters, cut around the discs."""

from __future__ import annotations

import numpy as np
import pytest

from aespa.config import Config
from aespa.data.arrays import load_arrays
from aespa.data.refuge import find_refuge
from aespa.synthetic import write_refuge


@pytest.fixture
def refuge(tmp_path):
    return write_refuge(tmp_path, 2, 1, seed=0, height=120, width=160)


def settings(folder, **keys):
    return Config(dataset="REFUGE", data_path=folder, **{"image_size": 64, "w": 1, **keys})


def test_structures_are_read_and_missing_raters_keep_their_place(refuge):
    (refuge / "Training-400/g0001/g0001_seg_disc_4.png").unlink()
    (refuge / "Training-400/g0001/g0001_cropped.jpg").write_text("not used")
    for structure, lacking in (("cup", None), ("disc", 3)):
        records = find_refuge(settings(refuge, structure=structure), "train")
        assert [record.name for record in records] == ["g0000", "g0001"]
        assert records[0].rater_ids == tuple("1234567")
        assert all(f"_seg_{structure}_" in path.name for path in records[0].raters)
        assert [i for i, path in enumerate(records[1].raters) if path is None] == (
            [] if lacking is None else [lacking]
        )
    assert len(find_refuge(settings(refuge), "test")) == 1


def test_crops_are_around_all_discs_unless_switched_off(refuge):
    cropped, whole = (
        find_refuge(settings(refuge), "test")[0],
        find_refuge(settings(refuge, crop=False), "test")[0],
    )
    assert len(cropped.crop_around) == 7
    assert all("_seg_disc_" in path.name for path in cropped.crop_around)
    assert whole.crop_around == ()
    assert find_refuge(settings(refuge, faithful=True), "test")[0].crop_around == ()
    for path in refuge.glob("*/*/*_disc_*.png"):
        path.unlink()
    assert all("_seg_cup_" in path.name for path in find_refuge(settings(refuge), "test")[0].crop_around)


def test_a_crop_keeps_the_aspect_and_makes_the_cup_larger(refuge):
    cropped, whole = (
        load_arrays(settings(refuge), "train"),
        load_arrays(settings(refuge, crop=False), "train"),
    )
    assert cropped.masks.sum() > 1.5 * whole.masks.sum()
    sample, full = cropped.native(0), whole.native(0)
    assert sample.image.shape[0] == sample.image.shape[1] < 160
    assert full.image.shape == (120, 160, 3)
    # Nothing of a cup is cut off, and image and masks are cut alike.
    assert np.array_equal(sample.masks.sum(axis=(1, 2)), full.masks.sum(axis=(1, 2)))
    inside = full.image[full.masks[0]]
    assert np.array_equal(sample.image[sample.masks[0]], inside)
    batch = cropped.batch([0])
    rows, columns = np.nonzero(batch.raters[0, 0].numpy())
    assert np.ptp(rows) == pytest.approx(np.ptp(columns), abs=1)  # a round cup stays round


def test_colours_survive(refuge):
    arrays = load_arrays(settings(refuge, cache="off"), "train")
    pixels = arrays.batch([1]).images[0]
    assert pixels[0].mean() > pixels[1].mean() > pixels[2].mean()
    assert np.array_equal(pixels, load_arrays(settings(refuge), "train").batch([1]).images[0])
    assert np.array_equal(
        arrays.subset([1]).batch([0]).images,
        load_arrays(settings(refuge, w=3, cache="off"), "train").batch([1]).images,
    )
