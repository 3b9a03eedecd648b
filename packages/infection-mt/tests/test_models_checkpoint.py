"""Checkpoints of this package and of the original, in all the shapes they come in."""

import numpy as np
import pytest
import torch

from infection_mt.config import Config, ModelConfig
from infection_mt.models.checkpoint import (
    build_model,
    infer_architecture,
    load_model,
    model_for_run,
    remap_heads,
)
from medshared.weights import WeightsError


def network(task="multitask", **keys):
    torch.manual_seed(4)
    settings = {"name": "resnet10", "pretrained": False, "hidden_dim": 8, "dropout": 0.2, **keys}
    return build_model(ModelConfig(**settings), task).eval()


FRAMES = torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {
            "model_state": s,
            "epoch": 3,
            "val_metrics": {"cls_auc": np.float32(0.5), "n": np.int64(2)},
        },
        lambda s: {"model_state_dict": s, "optimizer_state_dict": {}, "best_val_score": np.float64(0.9)},
        lambda s: {"state_dict": s},
        lambda s: s,
        lambda s: {f"module.{key}": value for key, value in s.items()},
        lambda s: {"model_state": {f"_orig_mod.{key}": value for key, value in s.items()}},
    ],
    ids=["model_state", "model_state_dict", "state_dict", "bare", "module", "compiled"],
)
def test_every_wrapping_is_read(tmp_path, wrap):
    model = network()
    torch.save(wrap(model.state_dict()), tmp_path / "best.pt")
    loaded, extras = load_model(tmp_path / "best.pt")
    assert not loaded.training
    for a, b in zip(model.outputs(FRAMES), loaded.outputs(FRAMES), strict=True):
        assert torch.equal(a, b)
    assert "model_state" not in extras
    if "val_metrics" in extras:
        assert (extras["epoch"], float(extras["val_metrics"]["cls_auc"])) == (3, 0.5)


@pytest.mark.parametrize("task", ["multitask", "classification", "regression"])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("hidden", [0, 8])
def test_the_architecture_is_read_from_the_keys(task, dropout, hidden):
    conditioned = task == "multitask" and hidden == 8
    model = network(task, dropout=dropout, hidden_dim=hidden, use_cls_conditioning=conditioned)
    found = infer_architecture(model.state_dict())
    assert (found.task, found.backbone, found.has_dropout) == (task, "resnet10", dropout > 0)
    assert found.hidden_dim == hidden or task == "classification"
    assert found.use_cls_conditioning == conditioned
    rebuilt = found.build(dropout=dropout)
    assert rebuilt.state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize("task", ["multitask", "regression"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_heads_move_between_the_dropout_layouts(tmp_path, task, dropout):
    """A run without dropout starts from weights with it, and the other way round."""
    source = network(task, dropout=0.3 - dropout)
    torch.save(source.state_dict(), tmp_path / "start.pt")
    model = {"name": "resnet10", "pretrained": False, "hidden_dim": 8, "dropout": dropout}
    config = Config.model_validate(
        {
            "data": {"manifest": "m.csv"},
            "task": {"type": task},
            "model": {**model, "weights": str(tmp_path / "start.pt")},
        }
    )
    target = model_for_run(config).eval()
    for a, b in zip(source.outputs(FRAMES), target.outputs(FRAMES), strict=True):
        assert a is b is None or torch.equal(a, b)
    there = remap_heads(source.state_dict(), to_dropout=dropout > 0)
    back = remap_heads(there, to_dropout=dropout == 0)
    assert back.keys() == source.state_dict().keys()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"fc.weight": torch.zeros(2, 2)}, r"not the weights of an infection-mt network.*fc\.weight"),
        (
            {"model_state": {"backbone.conv1.weight": torch.zeros(1)}},
            "'classifier.' or 'regressor.', found 1 keys",
        ),
        ({"epoch": 3}, "no state dictionary: expected one of 'model_state'"),
        ([1, 2], "found list"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path, content, words):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match=rf"x\.pt: .*{words}"):
        load_model(tmp_path / "x.pt")


def test_a_damaged_network_is_refused_with_a_table(tmp_path):
    state = dict(network().state_dict())
    state["backbone.bn1.weight"] = torch.zeros(3)
    del state["backbone.layer4.0.bn2.bias"]
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(WeightsError) as caught:
        load_model(tmp_path / "x.pt")
    assert "backbone.bn1.weight" in str(caught.value)
    assert "[64]" in str(caught.value)
    assert "[3]" in str(caught.value)
    assert "missing in the file (1)" in str(caught.value)
