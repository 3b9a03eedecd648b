"""The loop learns: a network of a few hundred parameters beats what needs no learning."""

from __future__ import annotations

import pytest

from medshared.configuration import load_config
from til_mtl.baselines import majority_dice
from til_mtl.config import Config
from til_mtl.run_data import find_store
from til_mtl.training import train_run


@pytest.mark.usefixtures("toy_network")
def test_a_toy_network_beats_the_majority_class_and_finds_the_cells(toy_keys, make_patches, tmp_path):
    root = make_patches(tmp_path / "more", {"train": (24, 24), "val": (12, 12)})
    keys = toy_keys | {"data_dir": str(root), "batch_size": 8, "lr": 0.03, "max_epochs": 12, "t_max": 12}
    config = load_config(Config, keys, label="test")
    metrics = train_run(config, tmp_path / "run", report=False)["metrics"]["val"]
    store = find_store(config, "val")
    assert metrics["dice_mean"] > majority_dice(store, 3) + 0.4
    assert metrics["cell_f1"] > 0.9
