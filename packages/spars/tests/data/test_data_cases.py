"""Cases in canonical axes: what is checked, what the cache keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medshared.volumes import read_volume, write_volume
from spars.config import ClassifierConfig, GameConfig
from spars.data.cases import load_case, read_label
from spars.data.layout import Case, find_cases
from spars.errors import DataError
from spars.synthetic import write_synthetic

CONFIG = ClassifierConfig()


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic")
    write_synthetic(folder, 4, 1, 0, size=(24, 24, 16))
    return folder


def test_canonical_arrays_and_their_way_back(written):
    for case in find_cases(written):
        volume = load_case(case, CONFIG)
        stored = read_volume(case.image)
        np.testing.assert_array_equal(volume.in_source(volume.image), stored.array)
        np.testing.assert_array_equal(volume.source_affine, stored.affine)
        np.testing.assert_array_equal(volume.in_source(volume.label), read_label(case).array)
        assert volume.image.dtype == np.int16
        assert volume.label.dtype == np.uint8
        assert np.argmax(np.abs(volume.affine[:3, :3]), axis=0).tolist() == [0, 1, 2]
        assert (np.diag(volume.affine)[:3] > 0).all()
        np.testing.assert_allclose(np.multiply(volume.shape, volume.spacing), (24, 24, 16), rtol=1e-5)


def test_cache_gives_the_same_and_follows_the_files(written, tmp_path):
    case = find_cases(written)[1]
    config = GameConfig(cache_dir=tmp_path)
    first = load_case(case, config)
    files = list((tmp_path / "volumes").iterdir())
    assert len(files) == 1
    stamp = files[0].stat().st_mtime_ns
    again = load_case(case, config)
    assert files[0].stat().st_mtime_ns == stamp
    for name in ("image", "label", "affine", "orientation", "source_affine"):
        np.testing.assert_array_equal(getattr(again, name), getattr(first, name))
        assert getattr(again, name).dtype == getattr(first, name).dtype
    load_case(Case(case.name, case.image), config)  # without its label it is another case
    load_case(case, GameConfig(cache_dir=tmp_path, label_map={0: 0, 1: 1, 2: 1}))
    assert len(list((tmp_path / "volumes").iterdir())) == 3
    with pytest.raises(DataError, match="no such volume"):
        load_case(Case("x", tmp_path / "x.nii.gz"), config)


def test_labels_are_mapped(tmp_path):
    array = np.array([0, 3, 7, 7], np.uint8).reshape(1, 2, 2)
    case = Case("a", tmp_path / "i.nii", write_volume(tmp_path / "l.nii", array, np.eye(4)))
    assert read_label(case, {0: 0, 3: 2, 7: 1}).array.ravel().tolist() == [0, 2, 1, 1]
    with pytest.raises(DataError, match=r"l\.nii: labels must be 0, 1, 2, found also 3, 7; set label_map"):
        read_label(case)
    with pytest.raises(DataError, match=r"labels must be 0, 3, found also 7"):
        read_label(case, {0: 0, 3: 2})


def test_image_and_label_must_lie_in_one_place(tmp_path):
    image = write_volume(tmp_path / "i.nii", np.zeros((4, 5, 6), np.int16), np.eye(4))
    other = write_volume(tmp_path / "o.nii", np.zeros((4, 6, 5), np.uint8), np.eye(4))
    with pytest.raises(DataError, match=r"o\.nii: shape 4×6×5, but the image .*i\.nii has 4×5×6"):
        load_case(Case("a", image, other), CONFIG)
    for fault, apart in ((np.diag([1, 1, -1, 1.0]), "10 mm"), (np.diag([1, 1, 1.2, 1.0]), "1 mm")):
        moved = write_volume(tmp_path / "m.nii", np.zeros((4, 5, 6), np.uint8), fault)
        with pytest.raises(DataError, match=rf"m\.nii: its affine puts it up to {apart} from the image"):
            load_case(Case("a", image, moved), CONFIG)
    rounded = np.eye(4)
    rounded[:3, 3] = 0.04
    near = write_volume(tmp_path / "n.nii", np.full((4, 5, 6), 2, np.uint8), rounded)
    assert (load_case(Case("a", image, near), CONFIG).label == 2).all()
