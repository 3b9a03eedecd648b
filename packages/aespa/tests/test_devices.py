"""Which devices a run gets."""

from __future__ import annotations

import pytest
import torch

from aespa.config import Config
from aespa.devices import Devices, choose_devices
from aespa.errors import TrainingError


def test_without_a_wish_it_is_one_process():
    assert choose_devices(Config(device="cpu")) == Devices("cpu", 1)
    assert choose_devices(Config(gpu=False)) == Devices("cpu", 1)


def test_processes_are_counted():
    found = choose_devices(Config(device="cpu", devices=2))
    assert found.count == 2
    assert found.first == torch.device("cpu")
    assert Devices("cuda", [2, 3]).count == 2
    assert Devices("cuda", [2, 3]).first == torch.device("cuda", 2)


def test_what_torchrun_started_works_together(monkeypatch):
    """Otherwise each process would train the whole run, all into one folder."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert choose_devices(Config(device="cpu")).count == 2
    assert choose_devices(Config(device="cpu", devices=2)).count == 2
    with pytest.raises(TrainingError, match="torchrun started 2 processes, -devices asks for 3"):
        choose_devices(Config(device="cpu", devices=3))


@pytest.mark.parametrize("text", ["0;1", "all", "", "0,,1"])
def test_a_list_of_devices_is_numbers(text):
    with pytest.raises(TrainingError, match="distributed: expected none or numbers"):
        choose_devices(Config(distributed=text))
