"""Training steps and slide maps on a GPU; left out where there is none."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from medshared.configuration import load_config
from medshared.runs import RunDirectory
from til_mtl.config import Config
from til_mtl.run_data import load_run_data
from til_mtl.trainer import RunOptions, Trainer

pytestmark = pytest.mark.gpu


def trainer_of(keys: dict, folder, **changes) -> Trainer:
    config = load_config(Config, keys | {"device": "cuda"} | changes, label="test").resolved()
    return Trainer(config, load_run_data(config), RunDirectory(folder), RunOptions())


def first_batch(trainer: Trainer):
    return next(trainer.batches.epoch(0, skip=0, limit=1, device=trainer.fabric.device))


@pytest.mark.usefixtures("toy_network")
@pytest.mark.parametrize("precision", ["32", "bf16", "16"])
def test_a_step_changes_the_weights(toy_keys, tmp_path, precision):
    trainer = trainer_of(toy_keys, tmp_path, precision=precision, gradient_clip_val=1.0)
    before = [parameter.detach().clone() for parameter in trainer.network.parameters()]
    batch = first_batch(trainer)
    assert batch.tasks.device.type == "cpu"
    for _ in range(3):  # the scaler of float16 may leave out the first
        trainer._step(batch, update=True)
    maps = trainer.maps(batch)
    assert maps.seg is not None
    assert maps.seg.dtype == {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}[precision]
    after = list(trainer.network.parameters())
    assert all(torch.isfinite(parameter).all() for parameter in after)
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.usefixtures("toy_network")
def test_a_step_does_not_wait_for_the_gpu(toy_keys, tmp_path):
    trainer = trainer_of(toy_keys, tmp_path, precision="bf16", normalize="lunit")
    batch = first_batch(trainer)
    trainer._step(batch, update=True)
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer._step(batch, update=True)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_network_in_bf16_and_channels_last_is_close_to_float32(toy_keys, tmp_path):
    keys = toy_keys | {"img_size": (64, 64), "encoder": "resnet18"}
    losses = []
    for name, changes in {"a": {"channels_last": False}, "b": {"precision": "bf16"}}.items():
        trainer = trainer_of(keys, tmp_path / name, **changes)
        assert trainer.channels_last is (name == "b")
        batch = first_batch(trainer)
        losses.append(trainer.loss(trainer.maps(batch), batch)[0])
        trainer._step(batch, update=True)
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=0.05)


def test_slide_maps_on_the_gpu_equal_those_of_the_cpu():
    from til_mtl.models.build import assemble_network
    from til_mtl.slides.maps import NetworkModel

    torch.manual_seed(0)
    network = assemble_network(Config(encoder="resnet18")).eval()
    tiles = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    (tissue, cells), (tissue_gpu, cells_gpu) = (
        NetworkModel([copy.deepcopy(network)], device=device)(tiles) for device in ("cpu", "cuda")
    )
    np.testing.assert_allclose(cells_gpu, cells, atol=1e-3)
    assert np.mean(tissue_gpu == tissue) > 0.99
