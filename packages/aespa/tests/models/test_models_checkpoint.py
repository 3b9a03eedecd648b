"""Checkpoints of this package and of the original load strictly; what cannot be used is named."""

from __future__ import annotations

import dataclasses
import os
import zipfile

import numpy as np
import pytest
import torch

from aespa.errors import CheckpointError
from aespa.models.architecture import Architecture
from aespa.models.build import build_network
from aespa.models.checkpoint import load_network, read_checkpoint, resize_state, save_network
from aespa.models.tables import resize_positions, resize_relative

TINY = Architecture(encoder="tiny", image_size=64, n_components=5)


@pytest.fixture(scope="module")
def network(fill_golden_weights):
    return fill_golden_weights(build_network(TINY), 2)


def _same(ours, theirs):
    own, other = ours.state_dict(), theirs.state_dict()
    assert own.keys() == other.keys()
    assert all(torch.equal(own[key], other[key]) for key in own)
    torch.testing.assert_close(ours.initial_responsibilities, theirs.initial_responsibilities)


def test_a_checkpoint_gives_the_network_back(network, tmp_path):
    path = save_network(tmp_path / "last.pth", network, epoch=7, config={"lr": 1e-4})
    loaded, rest = load_network(path)
    _same(loaded, network)
    assert loaded.architecture == TINY
    assert not loaded.training
    assert rest["epoch"] == 7
    assert rest["model"] == "sam"
    assert rest["config"] == {"lr": 1e-4}
    raw = torch.load(path, weights_only=True)
    for key in ("EM_weights", "EM_means", "EM_variances"):
        assert raw[key].shape == (5,)
        assert raw[key].dtype == torch.float64
    assert raw["EM_weights"].sum().item() == pytest.approx(1, abs=1e-6)


def _original_file(path, network, **changes):
    """What the original writes: tensors, Adam's state, and pickled arrays of NumPy."""
    k = network.architecture.n_components
    optimiser = torch.optim.Adam(network.EM_weights.parameters(), lr=1e-4)
    for parameter in network.EM_weights.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    network.zero_grad()
    rng = np.random.default_rng(0)
    start = rng.random(k)
    content = {
        "epoch": 20,
        "model": "sam",
        "state_dict": network.state_dict(),
        "optimizer": optimiser.state_dict(),
        "path_helper": {"prefix": "logs/run", "ckpt_path": "logs/run/Model", "log_path": "logs/run/Log"},
        "EM_weights": start / start.sum(),
        "EM_means": rng.uniform(-100, 100, k),
        "EM_variances": rng.uniform(0.1, 10, k),
        **changes,
    }
    torch.save(content, path)
    return content


def _with_names_of_numpy_1(source, target):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith("data.pkl"):
                assert b"numpy._core.multiarray" in data
                data = data.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
            new.writestr(name, data)


@pytest.fixture(scope="module")
def original_file(tmp_path_factory, golden_network):
    path = tmp_path_factory.mktemp("original") / "checkpoint_best.pth"
    network = build_network(TINY)  # its optimiser state stands for the original's
    start = np.linspace(1, 2, 16)
    content = _original_file(
        path, network, state_dict=golden_network.state_dict(), EM_weights=start / start.sum()
    )
    yield path, content
    path.unlink()


def test_a_checkpoint_of_the_original_says_its_sizes(original_file, golden_network):
    path, content = original_file
    loaded, rest = load_network(path)
    assert loaded.architecture == Architecture.original(128, 16)
    own, other = loaded.state_dict(), golden_network.state_dict()
    assert all(torch.equal(own[key], other[key]) for key in other)
    torch.testing.assert_close(
        loaded.initial_responsibilities.double(), torch.from_numpy(content["EM_weights"]), rtol=1e-6, atol=0
    )
    assert rest["epoch"] == 20
    assert "state" in rest["optimizer"]
    np.testing.assert_array_equal(rest["EM_means"], content["EM_means"])


def test_arrays_under_the_names_of_both_numpy_versions(network, tmp_path):
    new, old = tmp_path / "new.pth", tmp_path / "old.pth"
    content = _original_file(new, network, architecture=TINY.to_dict())
    _with_names_of_numpy_1(new, old)
    for path in (new, old):
        loaded, _ = load_network(path)
        np.testing.assert_allclose(loaded.initial_responsibilities, content["EM_weights"], rtol=1e-6)


def test_another_image_size_resizes_the_tables(network, tmp_path):
    path = save_network(tmp_path / "last.pth", network)
    larger, _ = load_network(path, image_size=96)
    assert larger.architecture == dataclasses.replace(TINY, image_size=96)
    table = network.image_encoder.blocks[1].attn.rel_w
    assert torch.equal(larger.image_encoder.blocks[1].attn.rel_w, resize_relative(table, 23))
    assert torch.equal(larger.image_encoder.pos_embed, resize_positions(network.image_encoder.pos_embed, 12))
    with torch.no_grad():
        assert larger.encode(torch.rand(1, 3, 96, 96)).shape == (1, 256, 12, 12)
    same, _ = load_network(path, image_size=64)
    _same(same, network)
    with pytest.raises(CheckpointError, match=r"last\.pth: image_size must be a multiple of 8.*found 100"):
        load_network(path, image_size=100)


def test_windows_and_the_stored_positions_of_vit_keep_their_size(golden_network):
    state = resize_state(golden_network.state_dict(), Architecture.original(256))
    changed = {key for key, value in state.items() if value.shape != golden_network.state_dict()[key].shape}
    assert len(changed) == 8
    assert all(".attn.rel_" in key for key in changed)


class _Evil:
    def __reduce__(self):
        return os.mkdir, ("never",)


def test_a_file_that_runs_code_is_refused(network, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _original_file(tmp_path / "evil.pth", network, path_helper=_Evil())
    with pytest.raises(
        CheckpointError, match=r"evil\.pth: refused, because reading it could run code.*mkdir"
    ):
        load_network(tmp_path / "evil.pth")
    assert not (tmp_path / "never").exists()


def test_arrays_of_objects_are_refused(network, tmp_path):
    _original_file(tmp_path / "o.pth", network, EM_weights=np.array([{}, None, 3, 4, 5], dtype=object))
    with pytest.raises(CheckpointError, match=r"o\.pth: "):
        load_network(tmp_path / "o.pth")


def _without(key):
    return lambda content: content["state_dict"].pop(key)


def _put(key, value):
    return lambda content: content["state_dict"].update({key: value})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            _without("EM_weights.fc1.bias"),
            r"1 tensors are missing \(EM_weights.fc1.bias\)\. give a checkpoint",
        ),
        (_put("extra.weight", torch.zeros(1)), r"1 are left over \(extra.weight\)"),
        (_put("EM_weights.fc6.bias", torch.zeros(9)), r"EM_weights.fc6.bias is \[9\], expected \[5\]"),
        (lambda c: c.pop("EM_weights"), r"no vector 'EM_weights' beside the state dictionary"),
        (lambda c: c.update(EM_weights=torch.zeros(3)), r"'EM_weights' is \[3\], expected \[5\]"),
        (lambda c: c.pop("state_dict"), r"no state dictionary: expected one of 'state_dict'"),
        (
            lambda c: c["architecture"].update(encoder="huge"),
            r"architecture cannot be built: encoder must be",
        ),
        (lambda c: c["architecture"].update(depth=3), r"unknown keys depth"),
        (lambda c: c["architecture"].update(image_size=96), r"4 have another shape|5 have another shape"),
        (
            lambda c: (
                c.pop("architecture"),
                c["state_dict"].clear(),
                c["state_dict"].update(a=torch.ones(1)),
            ),
            r"no checkpoint of this network: its 1 tensors lack",
        ),
    ],
)
def test_what_does_not_fit_is_named(spoil, message, network, tmp_path):
    path = save_network(tmp_path / "whole.pth", network)
    content = torch.load(path, weights_only=True)
    spoil(content)
    torch.save(content, tmp_path / "spoilt.pth")
    with pytest.raises(CheckpointError, match=rf"spoilt\.pth: .*({message})"):
        load_network(tmp_path / "spoilt.pth")


def test_files_that_are_no_checkpoints_are_named(network, tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.pth: no such checkpoint"):
        read_checkpoint(tmp_path / "none.pth")
    path = save_network(tmp_path / "last.pth", network)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"cut off after 5,000 bytes"):
        load_network(path)
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match=r"expected a mapping, found list"):
        load_network(path)
    torch.save({"image_encoder.blocks.0.attn.rel_pos_h": torch.zeros(27, 64)}, path)
    with pytest.raises(
        CheckpointError, match=r"weights of SAM, without preferences: pass the file as -sam_ckpt"
    ):
        load_network(path)
