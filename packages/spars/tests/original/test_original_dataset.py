"""Listing, pairs, draws and refusals of the original's data set."""

from __future__ import annotations

import logging
import os
import random

import nibabel
import numpy as np
import pytest

from spars.errors import DataError
from spars.original.dataset import CustomDataset, NIfTIDataset


@pytest.fixture
def folder(tmp_path, golden_json, golden_volumes):
    """The golden's data: four volumes, a note, and files that begin with a dot."""
    golden = golden_json("dataset")
    for name in ("imagesTr", "labelsTr"):
        (tmp_path / name).mkdir()
    for case, seed in golden["volume_seeds"].items():
        image, label = golden_volumes.golden_volume(golden["volume_shape"], seed)
        affine = np.diag([0.7, 0.8, 5.0, 1.0])
        nibabel.save(nibabel.Nifti1Image(image, affine), tmp_path / "imagesTr" / f"{case}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(label, affine), tmp_path / "labelsTr" / f"{case}.nii.gz")
    for name in golden["listing"]["listdir"]:
        (tmp_path / "labelsTr" / name).touch()
    return tmp_path


@pytest.fixture
def listed(monkeypatch):
    """Prescribe the order of a directory listing, which is the file system's."""
    return lambda names: monkeypatch.setattr(os, "listdir", lambda _folder: list(names))


def _relative(dataset, folder):
    return [[path.relative_to(folder).as_posix() for path in pair] for pair in dataset.pairs]


def test_golden_listing(folder, golden_json, listed, caplog):
    golden = golden_json("dataset")["listing"]
    listed(golden["listdir"])
    with caplog.at_level(logging.INFO):
        dataset = NIfTIDataset(folder, faithful=True)
    assert _relative(dataset, folder) == golden["pairs"]
    assert caplog.messages == golden["stdout"]


def test_corrected_listing(folder):
    dataset = NIfTIDataset(folder)
    numbers = [pair[1].name for pair in dataset.pairs]
    assert numbers == [f"liver_{k}.nii.gz" for k in (0, 5, 12, 101)]
    assert len(dataset) == 4


def test_only_the_folder_is_renamed(folder):
    moved = folder.rename(folder.with_name("labelsTr_copy"))
    assert NIfTIDataset(moved).pairs[0][0].is_file()
    assert "imagesTr_copy" in str(NIfTIDataset(moved, faithful=True).pairs[0][0])


def test_golden_draws(folder, golden_json, listed, golden_volumes):
    golden = golden_json("dataset")
    case = golden["batches"]
    listed(case["order"])
    seen = []

    def transform(image, label):
        seen.append((image, label))
        return np.zeros((2, 1, 1, 1, 1)), np.zeros((2, 1, 1, 1, 1))

    dataset = NIfTIDataset(folder, transform, faithful=True)
    random.seed(case["seed"])
    images, labels = dataset.get_data_batch(case["batch_size"], case["start_file_no"], case["end_file_no"])
    assert list(images.shape) == case["image_shape"]
    assert list(labels.shape) == case["label_shape"]
    assert str(images.dtype) == case["image_dtype"]
    assert len(seen) == len(case["volumes_drawn"])
    for name, (image, label) in zip(case["volumes_drawn"], seen, strict=True):
        seed = golden["volume_seeds"][name.removesuffix(".nii.gz")]
        drawn = golden_volumes.golden_volume(golden["volume_shape"], seed)
        assert image.dtype == label.dtype == np.float64
        np.testing.assert_array_equal(image, drawn[0])
        np.testing.assert_array_equal(label, drawn[1])


def test_a_source_of_draws_of_its_own(folder):
    def drawn(seed):
        seen = []
        dataset = NIfTIDataset(
            folder, lambda a, b: (seen.append(a.sum()), (a[None], b[None]))[1], rng=random.Random(seed)
        )
        images, _ = dataset.get_data_batch(6, 0, 99)
        assert images.dtype.is_floating_point
        return seen

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def _no_labels(folder):
    (folder / "labelsTr").rename(folder / "labels")


def _no_image(folder):
    (folder / "imagesTr" / "liver_12.nii.gz").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_no_labels, r"labelsTr: no such folder; data_dir must hold imagesTr/ and labelsTr/"),
        (
            _no_image,
            r"imagesTr/liver_12\.nii\.gz: no such image, but .*labelsTr/liver_12\.nii\.gz is its label",
        ),
    ],
)
def test_what_is_missing_is_named(folder, damage, message):
    damage(folder)
    with pytest.raises(DataError, match=message):
        NIfTIDataset(folder)


def _batch(folder, start=0, end=4, transform=lambda a, b: (a[None], b[None])):
    return NIfTIDataset(folder, transform).get_data_batch(8, start, end)


def test_refusals_of_a_batch(folder):
    with pytest.raises(DataError, match="needs a transform"):
        _batch(folder, transform=None)
    with pytest.raises(DataError, match=r"the range \[24, 40\) of 4 cases is empty"):
        _batch(folder, 24, 40)
    path = folder / "imagesTr" / "liver_0.nii.gz"
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"nothing"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"liver_0\.nii\.gz: not a NIfTI volume that can be read"):
            _batch(folder, 0, 1)
    nibabel.save(nibabel.Nifti1Image(np.zeros((14, 12, 9), np.int16), np.eye(4)), path)
    with pytest.raises(
        DataError, match=r"has the shape \(14, 12, 9\), its label .*liver_0\.nii\.gz \(14, 12, 10\)"
    ):
        _batch(folder, 0, 1)


def test_custom_dataset():
    pairs = CustomDataset([1, 2, 3], "abc")
    assert len(pairs) == 3
    assert pairs[1] == (2, "b")
