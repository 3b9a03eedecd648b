"""Checkpoints: which network they belong to, strict loading, and refusals."""

from __future__ import annotations

import pytest
import torch

from til_mtl.config import Config
from til_mtl.errors import CheckpointError
from til_mtl.models.build import assemble_network
from til_mtl.models.checkpoint import load_network

SMALL = "mobilenetv3_small_050"


@pytest.mark.parametrize(
    ("name", "task", "layout"),
    [("mtl", "mtl", "lightning"), ("stl_det", "det", "bare"), ("stl_seg", "seg", "ours")],
)
def test_original_and_own_checkpoints(name, task, layout, golden_state, golden_json, tmp_path):
    state = golden_state(name)
    prefixed = {f"net.{key}": value for key, value in state.items()}
    content = {
        "bare": state,
        "lightning": {
            "epoch": 7, "global_step": 160, "pytorch-lightning_version": "1.5.10", "state_dict": prefixed,
            "loops": {}, "callbacks": {}, "optimizer_states": [{}], "lr_schedulers": [],
        },
        "ours": {
            "state_dict": prefixed | {"balancing.log_variance": torch.zeros(2)},
            "config": Config(task="seg", freeze_encoder=False).model_dump(mode="json"),
            "epoch": 3,
        },
    }[layout]  # fmt: skip
    path = tmp_path / "epoch=7-step=160.ckpt"
    torch.save(content, path)
    network, meta = load_network(path, task=task)
    assert network.task == task
    assert not network.training
    assert list(network.state_dict()) == golden_json(f"parameters_{name}")["state_dict_order"]
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    if layout == "lightning":
        assert (meta["epoch"], meta["global_step"]) == (7, 160)
        assert "optimizer_states" not in meta
    trainable = sum(parameter.requires_grad for parameter in network.parameters())
    frozen = [not p.requires_grad for key, p in network.named_parameters() if key.startswith("layer1.")]
    assert all(frozen) == (layout != "ours")
    assert trainable > 0
    path.unlink()


def _save(path, task, **changes):
    network = assemble_network(Config(encoder=SMALL, task=task))
    state = {
        f"net.{key}": value.half() if value.is_floating_point() else value
        for key, value in network.state_dict().items()
    }
    config = Config(encoder=SMALL, task=task).model_dump(mode="json")
    torch.save({"state_dict": state, "config": config, **changes}, path)
    return network


def test_other_encoders_and_half_precision(tmp_path):
    path = tmp_path / "best.pt"
    saved = _save(path, "det")
    network, meta = load_network(path)
    assert network.encoder_name == SMALL
    assert network.task == "det"
    assert meta["config"]["task"] == "det"
    assert {value.dtype for value in network.state_dict().values()} == {torch.float32, torch.int64}
    x = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(network(x), saved.eval()(x), rtol=0.05, atol=0.05)


def test_a_checkpoint_of_another_task_is_refused(tmp_path):
    path = tmp_path / "best.pt"
    _save(path, "det")
    message = (
        r"best\.pt: this is a checkpoint of the cell network \(det\), the multi-task network \(mtl\) was"
    )
    with pytest.raises(CheckpointError, match=message):
        load_network(path, task="mtl")


def test_an_encoder_alone_is_refused_with_its_place(tmp_path):
    path = tmp_path / "swav.torch"
    torch.save({"conv1.weight": torch.zeros(2), "layer1.0.conv1.weight": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="weights of an encoder alone belong into `pretrained`"):
        load_network(path)


def test_a_nameless_encoder_is_refused(tmp_path):
    path = tmp_path / "best.pt"
    _save(path, "det", config=None)
    with pytest.raises(CheckpointError, match=r"not resnet50 and it has no configuration that names it"):
        load_network(path)


def test_weights_that_do_not_fit_are_listed(tmp_path):
    path = tmp_path / "best.pt"
    network = assemble_network(Config(encoder=SMALL, task="det"))
    state = dict(network.state_dict())
    del state["decoder_bn1.weight"]
    state["decoder_conv2.bias"] = torch.zeros(3)
    config = Config(encoder=SMALL, task="det").model_dump(mode="json")
    torch.save({"state_dict": state, "config": config}, path)
    with pytest.raises(CheckpointError) as error:
        load_network(path)
    assert str(error.value).startswith(f"{path}: the weights do not fit the cell network (det)")
    assert "decoder_bn1.weight" in str(error.value)
    assert "decoder_conv2.bias | [256]    | [3]" in str(error.value)
