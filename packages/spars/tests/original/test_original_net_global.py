"""The original's module is importable under its names."""

from __future__ import annotations

import inspect

from spars.original import net_global


def test_names():
    expected = {
        "CustomDataset", "NIfTIDataset", "NRandomCrop", "Net", "resize_image", "test_network", "train_network",
    }  # fmt: skip
    assert set(net_global.__all__) == expected
    assert all(callable(getattr(net_global, name)) for name in expected)


def test_defaults_are_the_originals():
    crop = inspect.signature(net_global.NRandomCrop).parameters
    assert (crop["crop_size"].default, crop["crop_no"].default) == ((64, 64, 32), 10)
    train = inspect.signature(net_global.train_network).parameters
    names = ("no_of_batches", "batch_size", "start_file_no", "end_file_no")
    assert [train[name].default for name in names] == [6, 4, 0, 24]
    evaluate = inspect.signature(net_global.test_network).parameters
    assert [evaluate[name].default for name in names] == [4, 4, 24, 40]
