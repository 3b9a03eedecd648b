"""Tensors and batches prepared ahead."""

import threading

import numpy as np
import pytest
import torch

from til_mtl.config import Config
from til_mtl.data.augment import Augmentation
from til_mtl.data.folders import find_run_patches
from til_mtl.data.loading import iterate_batches, to_tensor
from til_mtl.data.sampling import EpochBatches
from til_mtl.data.store import PatchStore
from til_mtl.errors import DataError


@pytest.fixture
def store(patch_root):
    config = Config(data_dir=patch_root, img_size=(16, 16), num_workers=1)
    return PatchStore(find_run_patches(config)["train"], config)


def test_to_tensor_divides_and_normalises():
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3)).astype(np.uint8)
    plain = to_tensor(images)
    assert plain.shape == (2, 3, 4, 6)
    assert plain.dtype == torch.float32
    assert np.array_equal(plain.permute(0, 2, 3, 1).numpy(), images.astype(np.float32) / 255)
    normal = to_tensor(images, "imagenet")
    assert torch.allclose(normal[:, 0], (plain[:, 0] - 0.485) / 0.229)
    with pytest.raises(ValueError, match="lunit, imagenet"):
        to_tensor(images, "macenko")


@pytest.mark.parametrize("prefetch", [0, 2])
def test_batches_come_in_order_with_their_labels(store, prefetch):
    plan = EpochBatches(store.tasks, 5, seed=0)
    wanted = list(plan.batches(0))
    got = list(iterate_batches(store, plan.batches(0), prefetch=prefetch))
    assert len(got) == len(wanted)
    for batch, indices in zip(got, wanted, strict=True):
        assert np.array_equal(batch.indices, indices)
        assert np.array_equal(batch.tasks.numpy(), store.tasks[indices])
        assert np.array_equal(batch.masks.numpy(), store.masks(indices))
        assert batch.masks.dtype == torch.int64
        assert torch.equal(batch.images, to_tensor(store.images(indices)))


def test_augmented_batches_do_not_depend_on_prefetching(store):
    def images(prefetch):
        plan = EpochBatches(store.tasks, 4, seed=0).batches(1)
        augmented = iterate_batches(store, plan, Augmentation("d4+stain"), seed=3, epoch=1, prefetch=prefetch)
        return torch.cat([batch.images for batch in augmented])

    assert torch.equal(images(0), images(3))
    assert not torch.equal(
        images(0),
        torch.cat(
            [b.images for b in iterate_batches(store, EpochBatches(store.tasks, 4, seed=0).batches(1))]
        ),
    )


def test_leaving_early_ends_the_thread(store):
    batches = iterate_batches(store, EpochBatches(store.tasks, 2).batches(0), prefetch=1)
    next(batches)
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "patches"]


def test_errors_of_the_thread_reach_the_caller(patch_root):
    config = Config(data_dir=patch_root, img_size=(16, 16), num_workers=1, cache="off")
    store = PatchStore(find_run_patches(config)["train"], config)
    store.files[3].image.write_bytes(store.files[3].image.read_bytes()[:60])
    with pytest.raises(DataError, match=store.files[3].image.name.replace("+", ".")):
        list(iterate_batches(store, EpochBatches(store.tasks, 4, shuffle=False).batches(0)))
