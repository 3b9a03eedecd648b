"""Decoded patches, their caches and cell centres."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from til_mtl.config import Config
from til_mtl.data.folders import find_run_patches
from til_mtl.data.store import PatchStore, component_centres


@pytest.fixture
def stores(patch_root, tmp_path):
    def make(**values):
        config = Config(data_dir=patch_root, img_size=(16, 16), num_workers=2, **values)
        return PatchStore(find_run_patches(config)["train"], config)

    return make


@pytest.mark.parametrize("cache", ["memory", "disk", "off"])
def test_caches_give_the_pixels_of_the_files(stores, tmp_path, cache):
    store = stores(cache=cache, cache_dir=tmp_path / "cache")
    assert len(store) == 12
    assert store.tasks.tolist() == [0] * 6 + [1] * 6
    chosen = np.array([7, 0, 11])
    for index, image, mask in zip(chosen, store.images(chosen), store.masks(chosen), strict=True):
        assert np.array_equal(image, np.array(Image.open(store.files[index].image)))
        assert np.array_equal(mask, np.array(Image.open(store.files[index].mask)))
    assert store.images([]).shape == (0, 16, 16, 3)
    assert store.masks([]).shape == (0, 16, 16)


def test_a_changed_file_is_decoded_again(stores, tmp_path):
    values = {"cache": "disk", "cache_dir": tmp_path / "cache"}
    store = stores(**values)
    path = store.files[0].image
    Image.fromarray(np.zeros((17, 16, 3), np.uint8)).save(path)
    assert (stores(**values).images([0]) == 0).all()


def test_points_of_annotations_scale_with_the_patch(stores, patch_root):
    folder = patch_root / "detection/train/points"
    folder.mkdir()
    name = stores().names[6]
    (folder / f"{name}.csv").write_text("x,y\n4,8\n16,0.5\n")
    assert stores().points(6).tolist() == [[4, 8], [16, 0.5]]
    for kind in ("img", "mask"):
        path = patch_root / "detection/train" / kind / f"{name}.png"
        Image.open(path).resize((32, 64), Image.Resampling.NEAREST).save(path)
    assert stores().points(6).tolist() == [[2, 2], [8, 0.125]]


def test_points_without_annotations_are_component_centres(stores):
    store = stores()
    assert np.array_equal(store.points(6), component_centres(store.masks([6])[0] == 1))
    assert store.points(0).shape == (0, 2)  # tissue patches have no cells


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), unique=True, max_size=9),
    st.integers(1, 6),
    st.integers(1, 6),
)
def test_component_centres_are_those_of_the_drawn_boxes(cells, width, height):
    mask = np.zeros((32, 32), bool)
    for column, row in cells:
        mask[8 * row : 8 * row + height, 8 * column : 8 * column + width] = True
    wanted = sorted((8 * c + width / 2, 8 * r + height / 2) for c, r in cells)
    assert np.allclose(sorted(map(tuple, component_centres(mask).tolist())), wanted) if cells else True
    assert len(component_centres(mask)) == len(cells)


def test_faithful_reads_masks_as_the_original(stores, patch_root):
    path = stores().files[0].mask
    labels = np.zeros((32, 32), np.uint8)
    labels[:, 17:] = 2
    Image.fromarray(labels).save(path)
    assert set(np.unique(stores().masks([0]))) == {0, 2}
    assert set(np.unique(stores(faithful=True).masks([0]))) == {0, 1, 2}


def test_resizing_is_told_once(stores, patch_root, caplog):
    stores()
    assert "resized" not in caplog.text
    config = Config(data_dir=patch_root, img_size=(32, 32), num_workers=1)
    store = PatchStore(find_run_patches(config)["train"], config)
    assert caplog.text.count("16 x 16 pixels, resized to img_size 32 x 32") == 1
    assert store.images([0]).shape == (1, 32, 32, 3)
