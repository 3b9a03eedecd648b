"""The original's data classes: items, order, letters of the task, and its way of reading masks."""

import numpy as np
import pytest
import torch
from PIL import Image

from til_mtl.errors import DataError
from til_mtl.original.datasets import DataModule, Total_Dataset, train_Dataset, val_Dataset


@pytest.fixture
def root(tmp_path):
    generator = np.random.default_rng(0)
    for task, top in (("segmentation", 3), ("detection", 2)):
        for split, count in (("train", 5), ("val", 2)):
            for kind in ("img", "mask"):
                folder = tmp_path / task / split / kind
                folder.mkdir(parents=True)
                for k in range(count):
                    shape = (20, 16, 3) if kind == "img" else (20, 16)
                    pixels = generator.integers(0, 256 if kind == "img" else top, shape).astype(np.uint8)
                    Image.fromarray(pixels).save(folder / f"{task[0]}{k}.png")
    return tmp_path


def test_multi_task_items_are_tissue_first_with_the_letter_of_the_task(root):
    data = train_Dataset(root, img_size=(16, 20))
    assert len(data) == 10
    assert [data[k][2] for k in range(10)] == ["s"] * 5 + ["d"] * 5
    image, mask, _ = data[3]
    assert image.shape == (3, 20, 16)
    assert image.dtype == torch.float32
    assert 0 <= image.min() <= image.max() <= 1
    assert mask.shape == (20, 16)
    assert mask.dtype == np.uint8
    pixels = np.array(Image.open(root / "segmentation/train/img/s3.png"))
    assert np.array_equal((image.permute(1, 2, 0) * 255).round().numpy().astype(np.uint8), pixels)


@pytest.mark.parametrize(("task", "letter"), [("seg", "s"), ("det", "d")])
def test_single_task_items_have_two_parts(root, task, letter):
    data = val_Dataset(root, task=task)
    assert len(data) == 2
    image, mask = data[0]
    assert image.shape == (3, 256, 256)
    assert mask.shape == (256, 256)
    assert data.files[0].name.startswith(letter)


def test_bicubic_masks_on_request(root):
    path = root / "segmentation/train/mask/s0.png"
    labels = np.zeros((20, 16), np.uint8)
    labels[:, 9:] = 2
    Image.fromarray(labels).save(path)
    assert set(np.unique(train_Dataset(root)[0][1])) == {0, 2}
    assert set(np.unique(train_Dataset(root, mask_resample="bicubic")[0][1])) == {0, 1, 2}


def test_loaders_shuffle_training_only(root):
    module = DataModule(root, batch_size=4, num_workers=0, img_size=(16, 20), drop_last=True)
    train = list(module.train_dataloader())
    assert [len(letters) for _, _, letters in train] == [4, 4]
    images, masks, letters = next(iter(module.val_dataloader()))
    assert images.shape == (4, 3, 20, 16)
    assert masks.shape == (4, 20, 16)
    assert list(letters) == ["s", "s", "d", "d"]
    again = [letters for _, _, letters in module.train_dataloader()]
    assert [list(a) for a in again] == [list(c) for _, _, c in train]


def test_total_dataset_pairs_images_and_masks(tmp_path):
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        Image.fromarray(np.full((8, 8), 7, np.uint8)).save(tmp_path / kind / "a.png")
    image, mask = Total_Dataset(tmp_path, img_size=(4, 4))[0]
    assert image.shape == (3, 4, 4)
    assert (mask == 7).all()
    (tmp_path / "masks/a.png").unlink()
    with pytest.raises(DataError, match=r"a\.png: there is no mask .*masks/a\.\*"):
        Total_Dataset(tmp_path)
