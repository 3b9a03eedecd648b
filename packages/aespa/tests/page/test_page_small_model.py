"""The small network of a page without weights."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from aespa.models.checkpoint import load_network
from aespa.page import small_model as module
from aespa.page.small_model import cache_folder, small_model, small_model_path


def test_the_cache_is_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("AESPA_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("AESPA_CACHE")
    assert cache_folder() == tmp_path / "xdg" / "aespa"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == Path.home() / ".cache" / "aespa"


def test_the_name_tells_version_and_recipe(monkeypatch):
    before = small_model_path()
    monkeypatch.setattr(module, "RECIPE", module.RECIPE + 1)
    assert small_model_path() != before
    assert module.__version__ in before.name


def test_a_trained_network_is_kept(small_checkpoint, monkeypatch):
    monkeypatch.setenv("AESPA_CACHE", str(small_checkpoint.parent))
    monkeypatch.setattr(module, "train_small_model", lambda *_: pytest.fail("it is there already"))
    assert small_model() == small_checkpoint
    network, rest = load_network(small_checkpoint)
    assert rest["config"]["mode"] == "AESPA"
    assert (network.architecture.encoder, network.architecture.image_size) == ("tiny", 32)
    assert [path.name for path in small_checkpoint.parent.iterdir()] == [small_checkpoint.name]


def test_a_damaged_one_is_made_again(monkeypatch, tmp_path, caplog, small_checkpoint):
    monkeypatch.setenv("AESPA_CACHE", str(tmp_path))
    small_model_path().write_bytes(small_checkpoint.read_bytes()[:1000])
    made = []
    monkeypatch.setattr(module, "train_small_model", lambda path, run: made.append((path, run)))
    with caplog.at_level(logging.INFO):
        assert small_model() == small_model_path()
    assert made[0][0] == small_model_path()
    assert "it is made again" in caplog.text
    assert "training a small demonstration network" in caplog.text


def test_a_stopped_training_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("AESPA_CACHE", str(tmp_path))

    def stopped(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("aespa.training.train_run", stopped)
    with pytest.raises(KeyboardInterrupt):
        small_model()
    assert list(tmp_path.iterdir()) == []
