"""The drawn images are written in the layouts of the papers' data sets."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from aespa.synthetic import draw_sample, make_demo_data, write_lidc
from aespa.synthetic_drawing import image_rng
from medshared.volumes import read_volume


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


def test_refuge_has_seven_raters_of_cup_and_disc(tmp_path):
    folder = make_demo_data(tmp_path, "REFUGE", 1, 1, seed=3)
    for name in ("Training-400/g0000", "Test-400/T0000"):
        files = {path.name for path in (folder / name).iterdir()}
        assert len(files) == 15
        stem = name.split("/")[1]
        cup, disc = (read(folder / name / f"{stem}_seg_{s}_2.png") for s in ("cup", "disc"))
        assert not (cup & ~disc).any()
        assert 0 < cup.sum() < disc.sum() / 3
        photograph = read(folder / name / f"{stem}.jpg")
        assert photograph.shape == (240, 300, 3)
        assert photograph[:, :20].max() < 20  # the frame
        assert photograph[disc > 0].mean() > photograph[:, 150].mean()


def test_mbhseg_volumes_are_raw_with_their_own_affines(tmp_path):
    folder = make_demo_data(tmp_path, "MBHSeg", 6, 1, seed=3)
    cases = sorted((folder / "train").iterdir())
    raters = [sorted(p.name[12] for p in case.glob("label*")) for case in cases]
    assert raters[:4] == [["1", "2", "3", "4"], ["1", "2", "3"], ["1", "2", "3", "4"], ["1", "3"]]
    affines = []
    for case in cases:
        image = read_volume(case / "image.nii.gz")
        assert image.shape == (128, 128, 8)
        assert (image.array.min(), image.array.max()) == (-1000, 1000)
        assert 0 <= image.array[3].min() <= image.array[3].max() <= 80
        labels = [read_volume(path) for path in sorted(case.glob("label*"))]
        assert all(np.array_equal(each.affine, image.affine) for each in labels)
        conservative, liberal = labels[0].array, labels[2 if len(labels) > 2 else 1].array
        assert len(np.unique(conservative)) == 2
        assert len(np.unique(liberal)) == 3
        assert not liberal[..., [0, 7]].any()
        affines.append(image.affine)
    assert len({np.sign(a[0, 0]) for a in affines}) == 2
    assert abs(affines[0][1, 2]) > 0
    assert len(list((folder / "test/ID_test000").glob("label*"))) == 3


def test_the_same_seed_writes_the_same_files(tmp_path):
    for dataset in ("MBHSeg", "REFUGE", "folders"):
        one, two, other = (
            make_demo_data(tmp_path / dataset / str(i), dataset, 1, 1, seed=seed)
            for i, seed in enumerate((1, 1, 2))
        )
        files = [path.relative_to(one) for path in sorted(one.rglob("*")) if path.is_file()]
        assert files
        assert all((one / each).read_bytes() == (two / each).read_bytes() for each in files)
        assert any((one / each).read_bytes() != (other / each).read_bytes() for each in files)
