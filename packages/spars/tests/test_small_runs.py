"""What ``--demo`` of a script runs on."""

from __future__ import annotations

import pytest

from spars.config import MODES
from spars.experiments import classifier_config, game_config
from spars.lattice import Lattice
from spars.presets import PRESETS
from spars.small_runs import demo_classifier_keys, demo_data, demo_game_keys, demo_window
from spars.synthetic import SIZE, WINDOW

GAMES = [name for name, preset in PRESETS.items() if preset.stage == "game"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("preset", GAMES)
def test_every_game_has_a_window_that_can_move(mode, preset):
    config = game_config(preset, {"mode": mode, **demo_game_keys(mode, preset)})
    lattice = Lattice(config.full_image_size, config.window_size, config.step_size)
    assert min(lattice.shape) >= 3
    assert config.resolved().target_size == "native"


def test_windows_keep_their_order_of_size():
    sizes = [
        demo_window(f"window-{text}") for text in ("8_8_8", "16_16_8", "32_32_16", "48_48_24", "64_64_32")
    ]
    volumes = [x * y * z for x, y, z in sizes]
    assert volumes == sorted(set(volumes))
    assert demo_window(None) == demo_window("best_RL") == WINDOW


@pytest.mark.parametrize("mode", MODES)
def test_classifiers_see_windows_in_their_own_size(mode):
    config = classifier_config("net_global", {"mode": mode, **demo_classifier_keys(mode)}).resolved()
    assert (config.architecture, config.target_size) == ("window", "native")
    assert config.full_image_size == SIZE


def test_data_are_drawn_once_and_hold_the_ranges_of_every_script(monkeypatch, tmp_path):
    calls = []

    def draw(folder, n_train, n_val, n_test, **_):
        calls.append((n_train, n_val, n_test))
        folder.mkdir(parents=True)
        (folder / "splits.json").touch()

    monkeypatch.setattr("spars.synthetic.write_synthetic", draw)
    for _ in range(2):
        assert demo_data(tmp_path, "classifier") == tmp_path / "data"
    ((n_train, n_val, n_test),) = calls
    ends = [PRESETS[name].validation for name in PRESETS if PRESETS[name].stage == "classifier"]
    assert n_train >= 24
    assert n_train + n_val + n_test >= max(end for _, end in filter(None, ends))
    demo_data(tmp_path / "game", "game")
    assert calls[1][0] > 5  # liver_5, the original's case, is among them
