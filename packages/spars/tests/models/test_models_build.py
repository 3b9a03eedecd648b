"""Weight files: round trips, the original's files, and refusals."""

from __future__ import annotations

import json

import pytest
import torch

from spars.config import ClassifierConfig
from spars.errors import CheckpointError, DataError
from spars.models.build import ClassifierMeta, build_classifier, load_classifier, save_classifier
from spars.models.net import Net
from spars.models.window_net import WindowNet

SMALL = (108, 108, 108)
NATIVE = ClassifierMeta("window", (12, 12, 8), "native", (-60.0, 160.0), 4)


@pytest.fixture
def saved(tmp_path):
    """A saved window classifier: file and module."""
    torch.manual_seed(0)
    module = build_classifier(NATIVE)
    module(torch.rand(4, 1, 12, 12, 8))  # moves the running statistics
    return save_classifier(tmp_path / "ex4_24in_weights.pth", module, NATIVE), module


def test_round_trip(saved):
    path, module = saved
    assert json.loads(path.with_suffix(".json").read_text()) == {
        "format": 1,
        "architecture": "window",
        "window": [12, 12, 8],
        "target_size": "native",
        "hu_window": [-60.0, 160.0],
        "width": 4,
    }
    loaded, meta = load_classifier(path, window=(12, 12, 8))
    assert meta == NATIVE
    assert not loaded.training
    assert loaded.state_dict().keys() == module.state_dict().keys()
    assert all(torch.equal(v, module.state_dict()[k]) for k, v in loaded.state_dict().items())


def test_a_weight_file_is_a_plain_state_dictionary(saved):
    path, module = saved
    module.load_state_dict(torch.load(path, weights_only=True), strict=True)


@pytest.mark.parametrize("wrapper", [dict, lambda state: {f"module.{k}": v for k, v in state.items()}])
def test_a_file_of_the_original(wrapper, tmp_path):
    net = Net(SMALL)
    torch.save(wrapper(net.state_dict()), tmp_path / "ex4_24in_weights.pth")
    loaded, meta = load_classifier(tmp_path / "ex4_24in_weights.pth", window=(48, 48, 24), target_size=SMALL)
    assert isinstance(loaded, Net)
    assert meta == ClassifierMeta("net", (48, 48, 24), SMALL, None)
    assert torch.equal(loaded.fc3.weight, net.fc3.weight)


def test_a_stretching_classifier_scores_any_window(tmp_path):
    meta = ClassifierMeta("net", (96, 96, 64), SMALL)
    save_classifier(tmp_path / "w.pth", build_classifier(meta), meta)
    assert load_classifier(tmp_path / "w.pth", window=(48, 48, 24))[1] == meta


@pytest.mark.parametrize(
    ("keys", "meta"),
    [
        ({}, ClassifierMeta("window", (96, 96, 64), "native", (-100.0, 300.0), 8)),
        ({"crop_size": (12, 12, 8), "width": 5}, ClassifierMeta("window", (12, 12, 8), "native", (-100.0, 300.0), 5)),
        ({"mode": "paper"}, ClassifierMeta("net", (96, 96, 64), (256, 256, 180), None, 8)),
        ({"mode": "faithful", "hu_window": (0, 1)}, ClassifierMeta("net", (96, 96, 64), (256, 256, 180), (0.0, 1.0), 8)),
    ],
)  # fmt: skip
def test_configurations(keys, meta):
    assert ClassifierMeta.of(ClassifierConfig(**keys)) == meta


def test_names():
    assert isinstance(build_classifier("window", (8, 8, 8), width=3), WindowNet)
    stretched = build_classifier("window", (8, 8, 8), (16, 16, 16))
    assert stretched.stages is not None
    assert stretched(torch.zeros(2, 1, 16, 16, 16)).shape == (2, 2)
    with torch.device("meta"):
        assert build_classifier("net").in_shape == (256, 256, 180)  # type: ignore[union-attr]
    with pytest.raises(CheckpointError, match="one of net, window, found 'unet'"):
        build_classifier("unet")  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="give the window's size"):
        build_classifier("window")
    with pytest.raises(DataError, match="larger target_size"):
        build_classifier("net", (48, 48, 24), "native")


def test_other_windows_are_refused(saved):
    with pytest.raises(
        CheckpointError, match="trained on windows of 12×12×8 voxels, asked to score 16×16×8; set"
    ):
        load_classifier(saved[0], window=(16, 16, 8))
    with pytest.raises(CheckpointError, match="at the size native, target_size is 256×256×180; leave"):
        load_classifier(saved[0], target_size=(256, 256, 180))


def _edit(key, value):
    def edit(path):
        meta = path.with_suffix(".json")
        meta.write_text(json.dumps(json.loads(meta.read_text()) | {key: value}))

    return edit


def _edit_state(change):
    def edit(path):
        state = torch.load(path, weights_only=True)
        torch.save(change(state), path)

    return edit


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), r"ex4_24in_weights\.pth: no such checkpoint"),
        (lambda path: path.write_bytes(b""), "the file is empty"),
        (lambda path: path.write_bytes(path.read_bytes()[:-200]), "cut off"),
        (lambda path: path.with_suffix(".json").unlink(), r"ex4_24in_weights\.json, which says .* is not beside it"),
        (lambda path: path.with_suffix(".json").write_text("{"), "description of the weights cannot be read"),
        (_edit("format", 9), "expected format 1"),
        (_edit("architecture", "unet"), "architecture must be one of net, window, found 'unet'"),
        (_edit("window", [12, 12]), r"window must be whole numbers from 1.*found \[12, 12\]"),
        (_edit("width", None), "width must be whole numbers"),
        (_edit("hu_window", [3, 1]), r"hu_window must be two rising numbers or null, found \[3, 1\]"),
        (_edit("width", 8), r"of another shape(.|\n)*hidden\.weight +\| \[32, 32\] +\| \[32, 16\]"),
        (_edit_state(lambda state: {k: v for k, v in state.items() if k != "logits.bias"}), r"missing in the file \(1\):\n +logits\.bias"),
        (_edit_state(lambda state: state | {"extra": torch.zeros(2)}), r"unexpected in the file \(1\):\n +extra"),
        (_edit_state(lambda state: {"loss": 0.3}), "no state dictionary"),
    ],
)  # fmt: skip
def test_bad_files_are_named(saved, damage, message):
    path, _ = saved
    damage(path)
    with pytest.raises(CheckpointError, match=message) as error:
        load_classifier(path)
    assert str(path.with_suffix("")) in str(error.value)


def test_weights_of_another_network(tmp_path):
    torch.save(torch.nn.Linear(3, 2).state_dict(), tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"no classifier's weights: expected names like conv1\.weight"):
        load_classifier(tmp_path / "other.pth")


def test_the_description_has_a_name_of_its_own(tmp_path):
    with pytest.raises(CheckpointError, match=r"must not end in \.json; call it w\.pth"):
        save_classifier(tmp_path / "w.json", build_classifier(NATIVE), NATIVE)
    assert not list(tmp_path.iterdir())
