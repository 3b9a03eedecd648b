"""Sizes of the published networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from advmil import scripts
from advmil.model_stats import (
    count_multiply_adds,
    count_parameters,
    default_config,
    show_model_stats,
    synthetic_inputs,
)
from advmil.models.build import build_discriminator, build_generator


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [("patch", 1_653_314), ("abmil", 911_810), ("cluster", 911_810), ("graph", 272_323)],
)
def test_generators_have_the_published_sizes(backbone, expected):
    config = default_config(backbone)
    network = build_generator(config)
    assert count_parameters(network) == expected
    with torch.no_grad():
        assert network(*synthetic_inputs(config, "G", 32)).shape == (1, 1)


def test_the_discriminator_has_the_published_size():
    assert count_parameters(build_discriminator(default_config("patch"))) == 206_338


def test_multiply_adds_are_those_of_the_matrix_products():
    network = nn.Sequential(nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 2))
    assert count_multiply_adds(network, (torch.zeros(5, 32),)) == 5 * (32 * 8 + 8 * 2)


def test_multiply_adds_grow_with_the_bag():
    config = default_config("abmil")
    network = build_generator(config)
    small, large = (count_multiply_adds(network, synthetic_inputs(config, "G", n)) for n in (16, 32))
    per_patch = 1024 * 384 + 2 * 384 * 384 + 384 + 384  # embedding, gated attention, its score, weighted sum
    assert large - small == 16 * per_patch


@pytest.mark.parametrize(("model", "backbone"), [("D", "patch"), ("G", "graph")])
def test_the_script_prints_them(capsys, model, backbone):
    assert scripts.model_stats(["-m", model, "-b", backbone, "--num_patches", "64"]) == 0
    shown = capsys.readouterr().out
    assert "Parameters: " in shown
    assert "Multiply-adds for one bag of 64 patches:" in shown


def test_a_configuration_sets_the_sizes(tmp_path, capsys):
    path = tmp_path / "c.yaml"
    path.write_text("bcb_mode: abmil\nbcb_dims: 16-8-8\ngen_dims: 8-1\nseed: [1, 2]\n")
    assert show_model_stats("G", "patch", 10, path) == 0
    expected = count_parameters(
        build_generator(default_config("abmil").model_copy(update={"bcb_dims": "16-8-8", "gen_dims": "8-1"}))
    )
    assert f"Parameters: {expected:,}" in capsys.readouterr().out
    path.write_text("task: surv_cox\nbcb_mode: abmil\nbcb_dims: 16-8-8\npdh_dims: 8-1\n")
    assert show_model_stats("G", "patch", 10, path) == 0
    assert "SurvivalNet" in capsys.readouterr().out


def test_a_bag_without_whole_regions_is_refused(capsys):
    assert scripts.model_stats(["--num_patches", "100"]) == 1
    assert "a multiple of 16" in capsys.readouterr().err
