"""One image or mask from a file; goldens of the original and of the corrected reading."""

import numpy as np
import pytest
from PIL import Image

from til_mtl.data.images import read_image, read_mask
from til_mtl.data.loading import to_tensor


@pytest.fixture(scope="module")
def golden_files(tmp_path_factory, golden_npz, golden_json):
    """Save the golden arrays as PNG: case → (image, mask), and return the wanted values as well."""
    arrays, about = golden_npz("dataset"), golden_json("dataset")
    folder = tmp_path_factory.mktemp("dataset")
    palette = Image.fromarray(arrays["same_mask"], mode="P")
    palette.putpalette(about["palette_rgb"])
    pictures = {
        "resized": (Image.fromarray(arrays["img"]), Image.fromarray(arrays["mask"])),
        "same_size": (Image.fromarray(arrays["same_img"]), Image.fromarray(arrays["same_mask"])),
        "rgba_palette": (Image.fromarray(arrays["rgba"]), palette),
        "grey": (Image.fromarray(arrays["grey"]), Image.fromarray(arrays["same_mask"])),
    }
    for case, pair in pictures.items():
        for kind, picture in zip(("img", "mask"), pair, strict=True):
            picture.save(folder / f"{case}.{kind}.png")
    return folder, tuple(about["resize_to"]), arrays


@pytest.mark.parametrize("case", ["resized", "same_size", "rgba_palette", "grey"])
def test_corrected_reading_equals_the_golden(golden_files, case):
    folder, size, wanted = golden_files
    image = read_image(folder / f"{case}.img.png", size)
    assert np.array_equal(to_tensor(image[None])[0].numpy(), wanted[f"{case}.corrected.img"])
    mask = read_mask(folder / f"{case}.mask.png", "segmentation", size)
    assert np.array_equal(mask, wanted[f"{case}.corrected.mask"])


@pytest.mark.parametrize("case", ["resized", "same_size", "rgba_palette", "grey"])
def test_original_reading_equals_the_golden(golden_files, case):
    folder, size, wanted = golden_files
    mask = read_mask(folder / f"{case}.mask.png", "segmentation", size, "bicubic")
    assert np.array_equal(mask, wanted[f"{case}.original.mask"])
    if case in (
        "resized",
        "same_size",
    ):  # the others have 4 channels or 1 in the original: no network takes them
        image = read_image(folder / f"{case}.img.png", size)
        assert np.array_equal(to_tensor(image[None])[0].numpy(), wanted[f"{case}.original.img"])


def test_bicubic_masks_change_the_share_of_labels_that_was_measured(golden_files, golden_json):
    folder, size, _ = golden_files
    path = folder / "resized.mask.png"
    nearest, bicubic = read_mask(path, "segmentation", size), read_mask(path, "segmentation", size, "bicubic")
    assert (nearest != bicubic).mean() == golden_json("dataset")["fraction_of_labels_changed_by_bicubic"]


def test_normalised_tensor_equals_the_golden(golden_files):
    folder, size, wanted = golden_files
    image = read_image(folder / "same_size.img.png", size)
    tensor = to_tensor(image[None], "lunit")[0].numpy()
    assert np.abs(tensor - wanted["same_size.corrected.normalised"]).max() < 1e-6


@pytest.mark.parametrize("mode", ["1", "L", "P", "I;16", "RGB", "RGBA"])
def test_masks_keep_their_labels_whatever_the_mode(tmp_path, mode):
    labels = np.array([[0, 1], [1, 0]], np.uint8)
    grey = Image.fromarray(labels * (255 if mode == "1" else 1))
    picture = Image.merge("RGBA", [grey] * 3 + [Image.new("L", (2, 2), 255)]) if mode == "RGBA" else grey
    (picture if mode in ("L", "RGBA") else grey.convert(mode)).save(tmp_path / "mask.png")
    if mode == "P":
        palette = Image.fromarray(labels, mode="P")
        palette.putpalette([255, 0, 0, 0, 255, 0])
        palette.save(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png", "detection"), labels)


def test_patches_of_another_size_are_resized(tmp_path):
    labels = np.zeros((40, 60), np.uint8)
    labels[:, 30:] = 2
    Image.fromarray(labels).save(tmp_path / "mask.png")
    Image.fromarray(np.full((40, 60, 3), 9, np.uint8)).save(tmp_path / "image.png")
    mask = read_mask(tmp_path / "mask.png", "segmentation", (16, 8))
    assert mask.shape == (8, 16)
    assert set(np.unique(mask)) == {0, 2}
    image = read_image(tmp_path / "image.png", (16, 8))
    assert image.shape == (8, 16, 3)
    assert (image == 9).all()


def test_ignored_pixels_survive_both_ways_of_resizing(tmp_path):
    labels = np.zeros((32, 32), np.uint8)
    labels[:, 16:] = 250
    Image.fromarray(labels).save(tmp_path / "mask.png")
    assert set(np.unique(read_mask(tmp_path / "mask.png", "segmentation", (10, 10)))) == {0, 250}
    assert read_mask(tmp_path / "mask.png", "segmentation", (10, 10), "bicubic").max() == 250
