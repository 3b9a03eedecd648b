"""Images decoded on demand are those of the arrays in memory."""

from __future__ import annotations

import numpy as np
import pytest

from aespa.config import Config
from aespa.data.arrays import load_arrays
from aespa.data.on_demand import channels_first, resized_image
from aespa.synthetic import write_folders, write_png


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    return write_folders(tmp_path_factory.mktemp("own"), 4, 1, seed=0, size=40)


@pytest.mark.parametrize("threads", [0, 3])
def test_indexing_is_that_of_an_array(own, threads):
    config = Config(dataset="folders", data_path=own, image_size=32, w=threads)
    array, lazy = (
        load_arrays(config.model_copy(update={"cache": c}), "train").images for c in ("memory", "off")
    )
    assert lazy.shape == array.shape
    assert len(lazy) == 4
    for where in (2, [3, 0, 3, 3], np.array([1]), []):
        where = where if isinstance(where, int) else np.asarray(where, np.int64)
        assert np.array_equal(lazy[where], array[where])
    picked = lazy.pick(np.array([2, 1]))
    assert np.array_equal(picked[[0, 1]], array[[2, 1]])
    assert len(lazy.pick(np.array([], np.int64))) == 0


def test_an_image_asked_for_twice_is_decoded_once(own, monkeypatch):
    images = load_arrays(Config(dataset="folders", data_path=own, image_size=32, cache="off"), "train").images
    decoded = []
    monkeypatch.setattr(
        "aespa.data.on_demand.resized_image",
        lambda record, box, size: decoded.append(record.name) or resized_image(record, box, size),
    )
    images[[1, 1, 0, 1]]
    assert sorted(decoded) == ["train_0000", "train_0001"]


def test_grey_pictures_with_three_channels_are_kept_once(own, tmp_path):
    from dataclasses import replace

    from aespa.data.records import find_records

    record = find_records(Config(dataset="folders", data_path=own), "train")[0]
    grey = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    for name, pixels, shape in (
        ("grey", np.dstack([grey] * 3), (32, 32)),
        ("colour", np.dstack([grey, grey, grey // 2]), (32, 32, 3)),
    ):
        write_png(tmp_path / f"{name}.png", pixels)
        resized = resized_image(replace(record, image=tmp_path / f"{name}.png"), None, 32)
        assert resized.shape == shape
        assert channels_first(resized).shape == (1 if resized.ndim == 2 else 3, 32, 32)
