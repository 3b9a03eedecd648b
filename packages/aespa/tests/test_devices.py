"""The flags that choose devices."""

from __future__ import annotations

import pytest
import torch

from aespa.config import Config
from aespa.devices import Devices, choose_devices
from aespa.errors import TrainingError
from medshared.gpu import DeviceError


@pytest.fixture
def two_gpus(monkeypatch):
    """Pretend that this machine has two CUDA devices."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, Devices("cuda", [0])),
        ({"gpu_device": 1}, Devices("cuda", [1])),
        ({"device": "cuda:1"}, Devices("cuda", [1])),
        ({"device": "cuda", "devices": 2}, Devices("cuda", 2)),
        ({"distributed": "0,1"}, Devices("cuda", [0, 1])),
        ({"distributed": "1"}, Devices("cuda", [1])),
        ({"gpu": False}, Devices("cpu", 1)),
        ({"device": "cpu", "devices": 2}, Devices("cpu", 2)),
    ],
)
def test_flags(two_gpus, keys, expected):
    found = choose_devices(Config(**keys))
    assert found == expected
    assert found.count == (2 if expected.numbers in (2, [0, 1]) else 1)


def test_the_first_device():
    assert Devices("cuda", [1, 0]).first == torch.device("cuda", 1)
    assert Devices("cuda", 2).first == torch.device("cuda", 0)
    assert Devices("cpu", 2).first == torch.device("cpu")


@pytest.mark.parametrize("text", ["all", "0;1", "0,", "-1"])
def test_a_list_of_devices_that_is_none(text):
    with pytest.raises(TrainingError, match="expected none or numbers of CUDA devices"):
        choose_devices(Config(distributed=text))


@pytest.mark.parametrize("keys", [{"distributed": "0,2"}, {"device": "cuda:2"}])
def test_a_device_that_is_not_there(two_gpus, keys):
    with pytest.raises(DeviceError, match="cuda:2"):
        choose_devices(Config(**keys))


def test_no_gpu_at_all(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError):
        choose_devices(Config(distributed="0,1"))


def test_what_torchrun_started_works_together(monkeypatch):
    """Otherwise each process would train the whole run, all into one folder."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    for name, value in {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "RANK": 1, "LOCAL_RANK": 1}.items():
        monkeypatch.setenv(name, str(value))
    assert choose_devices(Config(device="cpu")).count == 2
    assert choose_devices(Config(device="cpu", devices=2)).count == 2
    with pytest.raises(TrainingError, match="torchrun started 2 processes, -devices asks for 3"):
        choose_devices(Config(device="cpu", devices=3))
