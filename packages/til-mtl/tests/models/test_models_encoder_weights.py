"""Encoder checkpoints of every layout: prefixes, wrappers, file formats, and refusals."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from til_mtl.errors import CheckpointError
from til_mtl.models import encoder_weights
from til_mtl.models.deeplab import SingleTaskDeepLabv3Plus
from til_mtl.models.encoder_weights import encoder_state, load_encoder, load_encoder_state

PREFIXES = ("", "model.", "encoder.", "model.encoder.", "module.", "module.model.encoder.", "backbone.")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return SingleTaskDeepLabv3Plus()


@pytest.fixture(scope="module")
def published(golden_json) -> dict[str, torch.Tensor]:
    """The 318 names and shapes of the published encoder, each tensor filled with a number of its own."""
    state = {}
    for name, shape in golden_json("state_dict_encoder_pretrained").items():
        kind = torch.int64 if name.endswith("num_batches_tracked") else torch.float32
        state[name] = torch.full(shape, zlib.crc32(name.encode()) % 1000, dtype=kind)
    return state


@pytest.fixture
def wipe(network):
    """Set the encoder to −1, and give a check of what it holds afterwards."""
    for value in encoder_state(network).values():
        value.fill_(-1)

    def is_loaded() -> bool:
        return all(
            bool((value == zlib.crc32(key.replace(".0.", ".", 1).encode()) % 1000).all())
            for key, value in encoder_state(network).items()
        )

    return is_loaded


def test_golden_encoder_has_318_tensors(published):
    assert len(published) == 318


@pytest.mark.parametrize("prefix", PREFIXES)
def test_every_prefix_loads_also_those_that_the_original_ignored(
    prefix, network, published, wipe, golden_json, caplog
):
    case = golden_json("encoder_loading")[prefix or "plain"]
    with caplog.at_level("INFO"):
        report = load_encoder_state(
            network, {prefix + key: value for key, value in published.items()}, "file"
        )
    assert wipe()
    assert len(report.matched) == 258
    assert sum(not key.endswith("num_batches_tracked") for key in report.matched) == case["encoder_tensors"]
    assert len(report.unexpected) == 60
    where = f" behind '{prefix}'" if prefix else ""
    assert f"258 of 258 encoder weights loaded{where}; left out of the file: layer4 (60)" in caplog.text


def test_swav_layout_leaves_projection_head_and_prototypes(network, published, wipe):
    extras = {"projection_head.0.weight": torch.zeros(2), "prototypes.weight": torch.zeros(2)}
    report = load_encoder_state(
        network, {f"module.{key}": value for key, value in (published | extras).items()}, "swav"
    )
    assert wipe()
    assert {"module.projection_head.0.weight", "module.prototypes.weight"} <= set(report.unexpected)


def test_moco_layout_takes_the_query_encoder(network, published, wipe, tmp_path):
    other = {f"module.encoder_k.{key}": value + 1 for key, value in published.items()}
    state = other | {f"module.encoder_q.{key}": value for key, value in published.items()}
    state["module.queue"] = torch.zeros(3)
    path = tmp_path / "moco.pth"
    torch.save({"epoch": 200, "state_dict": state, "optimizer": {}}, path)
    load_encoder(network, path)
    assert wipe()


def test_barlow_twins_layout(network, published, wipe, tmp_path):
    state = {f"module.backbone.{key}": value for key, value in published.items()}
    state["module.projector.0.weight"] = torch.zeros(3)
    path = tmp_path / "bt.pth"
    torch.save({"epoch": 200, "model": state}, path)
    report = load_encoder(network, path)
    assert wipe()
    assert len(report.unexpected) == 61


def test_a_network_of_this_package_is_a_source_too(network, wipe, golden_json):
    shapes = golden_json("state_dict_mtl")
    state = {
        f"net.{key}": torch.full(shape, zlib.crc32(key.replace(".0.", ".", 1).encode()) % 1000)
        for key, shape in shapes.items()
    }
    report = load_encoder_state(network, state, "best.pt")
    assert wipe()
    assert len(report.matched) == 258


@pytest.mark.parametrize("suffix", [".torch", ".pth", ".ckpt", ".safetensors"])
def test_file_formats(suffix, network, published, wipe, tmp_path):
    path = tmp_path / f"encoder{suffix}"
    if suffix == ".safetensors":
        save_file(published, path)
    else:
        torch.save({"state_dict": published} if suffix == ".ckpt" else published, path)
    load_encoder(network, path)
    assert wipe()


def test_files_without_counters_load(network, published, wipe):
    state = {key: value for key, value in published.items() if not key.endswith("num_batches_tracked")}
    assert len(load_encoder_state(network, state, "old.pth").matched) == 215


def _broken(name: str, published: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    if name == "another network":
        return {"blocks.0.attn.qkv.weight": torch.zeros(2), "pos_embed": torch.zeros(2)}
    if name == "incomplete":
        return {key: value for key, value in published.items() if not key.startswith("layer3.5")}
    return published | {"conv1.weight": torch.zeros(64, 1, 7, 7)}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "another network",
            r"no weight fits the encoder resnet50: expected names like conv1\.weight.*set `encoder`",
        ),
        ("incomplete", r"only 240 of 258 weights fit(.|\n)*layer3\.0\.5\.conv1\.weight"),
        ("gray", r"of another shape(.|\n)*conv1\.0\.weight\s*\| \[64, 3, 7, 7\] \| \[64, 1, 7, 7\]"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(name, message, network, published, wipe):
    with pytest.raises(CheckpointError, match=message):
        load_encoder_state(network, _broken(name, published), "file.pth")
    assert all(bool((value == -1).all()) for value in encoder_state(network).values())


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (None, "missing.pth", "no such checkpoint"),
        (None, "missing.safetensors", "no such weight file"),
        (b"", "empty.torch", "the file is empty"),
        (b"<!DOCTYPE html>", "page.pth", "a web page, not a checkpoint"),
        (b"nothing", "other.safetensors", "may be damaged"),
    ],
)
def test_unreadable_files(content, name, message, network, tmp_path: Path):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as error:
        load_encoder(network, path)
    assert str(path) in str(error.value)


def test_a_checkpoint_without_weights_is_refused(network, tmp_path):
    path = tmp_path / "log.pt"
    torch.save({"epoch": 3, "loss": 0.5}, path)
    with pytest.raises(CheckpointError, match="no state dictionary: expected one of"):
        load_encoder(network, path)


@pytest.fixture
def caches(tmp_path, monkeypatch) -> Path:
    """Empty caches of torch and Hugging Face under one folder."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def _publish(caches: Path, name: str) -> Path:
    """Put a file where Hugging Face's cache keeps timm's default weights of resnet18."""
    folder = caches / "hub" / "models--timm--resnet18.a1_in1k"
    path = folder / "snapshots" / "abc" / name
    path.parent.mkdir(parents=True)
    path.touch()
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    return path


def test_imagenet_weights_of_resnet50_are_looked_for_in_the_cache_of_torch(caches):
    assert encoder_weights.find_imagenet_file("resnet50") is None
    cached = caches / "checkpoints" / "resnet50-0676ba61.pth"
    cached.parent.mkdir()
    cached.touch()
    assert encoder_weights.find_imagenet_file("resnet50") == cached


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_imagenet_weights_of_timm_are_looked_for_in_the_cache_of_hugging_face(name, caches):
    assert encoder_weights.find_imagenet_file("resnet18") is None
    cached = _publish(caches, name)
    assert encoder_weights.find_imagenet_file("resnet18") == cached


def test_a_download_goes_through_timm_into_the_cache(caches, monkeypatch):
    asked = []

    def load(repository, **options):
        asked.append((repository, options))
        _publish(caches, "model.safetensors")

    monkeypatch.setattr("timm.models.load_state_dict_from_hf", load)
    path = encoder_weights.download_imagenet_file("resnet18")
    assert path.name == "model.safetensors"
    assert asked == [("timm/resnet18.a1_in1k", {"weights_only": True})]


def test_a_failed_download_says_why(caches, monkeypatch):
    def fail(*_args, **_kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr("timm.models.load_state_dict_from_hf", fail)
    with pytest.raises(CheckpointError, match="the download for resnet18 failed: no route to host"):
        encoder_weights.download_imagenet_file("resnet18")
