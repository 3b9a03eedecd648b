"""The device that the original's flags ask for."""

from __future__ import annotations

import pytest
import torch

from medshared.gpu import DeviceError
from til_mtl.config import Config
from til_mtl.devices import choose_device
from til_mtl.errors import TrainingError


def chosen(**keys) -> str:
    return str(choose_device(Config(**keys)))


@pytest.fixture(params=[0, 2], ids=["no GPU", "two GPUs"])
def gpus(request, monkeypatch) -> int:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: request.param)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    return request.param


@pytest.mark.parametrize(
    "keys",
    [
        {"device": "cpu"},
        {"gpus": 0},
        {"accelerator": "cpu"},
        {"accelerator": "CPU", "devices": 1},
        {"device": "cpu", "gpus": 1},
    ],
)
def test_the_cpu_wherever_it_is_asked_for(keys, gpus):
    assert chosen(**keys) == "cpu"


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"gpus": 1},
        {"gpus": -1},
        {"gpus": "1"},
        {"devices": "auto"},
        {"accelerator": "auto", "devices": 1},
        {"device": "auto"},
    ],
)
def test_a_gpu_where_there_is_one(keys, gpus):
    assert chosen(**keys) == ("cuda" if gpus else "cpu")


@pytest.mark.parametrize(
    ("keys", "device"),
    [
        ({"devices": "0"}, "cuda:0"),
        ({"gpus": "[0]"}, "cuda:0"),
        ({"gpus": "0,"}, "cuda:0"),
        ({"device": "cuda:1"}, "cuda:1"),
    ],
)
def test_one_gpu_by_its_number(keys, device, gpus):
    if gpus:
        assert chosen(**keys) == device
    else:
        with pytest.raises(DeviceError, match="use 'auto' or 'cpu'"):
            chosen(**keys)


def test_gpus_on_a_machine_without_one_is_told(caplog, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert chosen(gpus=1) == "cpu"
    assert caplog.messages == ["gpus: 1: there is no CUDA device, the CPU is used"]


def test_an_accelerator_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="device 'cuda' was asked for"):
        chosen(accelerator="gpu", devices=1)


@pytest.mark.parametrize("asked", [2, "0,1", "all"])
def test_several_devices_are_refused(asked):
    with pytest.raises(TrainingError, match=r"a run uses one device; give --device cuda:N"):
        chosen(devices=asked)


def test_other_accelerators_are_refused():
    with pytest.raises(TrainingError, match="accelerator 'tpu': expected auto, cpu, gpu, cuda or mps"):
        chosen(accelerator="tpu")
