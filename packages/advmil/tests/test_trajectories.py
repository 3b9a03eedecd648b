"""Whole training steps against the original's: losses, predictions and how far every parameter moved."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch

from advmil.config import Config
from advmil.models.build import build_baseline, build_discriminator, build_generator
from advmil.optimisers import build_optimizer
from advmil.updates import (
    AdversarialSettings,
    AdversarialUpdate,
    BaselineSettings,
    BaselineUpdate,
    GroupLabels,
)

SMALL = {
    "bcb_dims": "32-16-16", "gen_dims": "16-1", "gen_dropout": 0.0, "bcb_dropout": 0.0, "disc_netx_in_dim": 32,
    "disc_netx_out_dim": 8, "disc_nety_hid_dims": "4-8", "disc_netx_dropout": 0.0, "faithful": True,
}  # fmt: skip
BASE = {
    "pdh_dims": "16-1",
    "mlp_dropout": 0.0,
    "opt_net_lr": 1e-4,
    "opt_net_weight_decay": 5e-4,
    "loss_use_censored": False,
}
RUNS = [
    "adv_patch",
    "adv_abmil",
    "adv_cluster",
    "adv_graph",
    "adv_patch_hinge",
    "adv_patch_wasserstein",
    "adv_patch_bag",
    "adv_patch_cat",
    "adv_patch_noise11",
    "adv_patch_noise00",
    "adv_patch_gen2",
    "adv_patch_gan0",
    "adv_patch_gan1",
    "adv_patch_l2_alpha",
    "adv_patch_days_exp",
    "disc_abmil",
    "semi_patch_mask",
    "adv_patch_bce_corrected",
    "disc_abmil_corrected",
]
BASE_RUNS = [
    "base_reg_patch",
    "base_reg_abmil",
    "base_cox_cluster",
    "base_nll_graph",
    "base_cox_cluster_corrected",
    "base_nll_graph_corrected",
]


class Bag(NamedTuple):
    x: torch.Tensor
    extra: torch.Tensor | None


def make_bags(arrays, mode, dtype):
    bags, start = [], 0
    for i, length in enumerate(arrays["lens"]):
        rows = slice(start, start + int(length))
        extra = {"cluster": arrays["cluster"][rows], "graph": arrays[f"edge_index_{i}"]}.get(mode)
        x = torch.from_numpy(arrays["x"][rows])[None].to(dtype)
        bags.append(Bag(x, None if extra is None else torch.from_numpy(extra)))
        start += int(length)
    return bags


def make_labels(arrays, config, dtype):
    t, e = torch.from_numpy(arrays["t"]), torch.from_numpy(arrays["e"])
    if config.task in ("disc_gansurv", "surv_nll"):
        t = torch.from_numpy(arrays["ybin"])
    elif config.task == "surv_cox" or config.time_format == "origin":
        t = t * 900
    return GroupLabels(t.to(dtype), e)


def draws(seed):
    counter = itertools.count()

    def draw(size):
        k = next(counter)
        return torch.from_numpy(np.random.RandomState(seed * 1000 + k).uniform(size=size).astype(np.float32))

    return draw


def moved(net, before):
    return {key: (p.detach() - before[key]).norm().item() for key, p in net.named_parameters()}


def snapshot(net):
    return {key: p.detach().clone() for key, p in net.named_parameters()}


def compare(got, expected, *, precise, skip_f32):
    if not precise and skip_f32:
        return
    tolerance = 1e-9 if precise else 1e-5
    assert len(got["log"]) == len(expected["log"])
    for ours, theirs in zip(got["log"], expected["log"], strict=True):
        assert set(ours) == set(theirs)
        for key, value in theirs.items():
            assert ours[key] == pytest.approx(value, abs=tolerance, rel=1e-12 if precise else 1e-5), key
    for part in ("moved", "moved_G", "moved_D"):
        if part in expected:
            atol = 1e-8 if precise else 2e-5
            assert got[part] == pytest.approx(expected[part], abs=atol), part


@pytest.mark.parametrize("memory", ["bag", "group"])
@pytest.mark.parametrize("name", RUNS)
def test_adversarial_run_equals_the_original(name, memory, golden_npz, golden_json, fill_golden_weights):
    arrays, facts = golden_npz("trajectories"), golden_json("trajectories")
    run, seed = facts["runs"][name], facts["seed"]
    for precision in ("f64", "f32"):
        if precision not in run:
            continue
        dtype = torch.float64 if precision == "f64" else torch.float32
        config = Config(**{**SMALL, **run["config"]}, memory=memory)
        g = fill_golden_weights(build_generator(config), seed).to(dtype)
        d = fill_golden_weights(build_discriminator(config), seed + 1).to(dtype)
        settings = replace(
            AdversarialSettings.from_config(config),
            gan_off_faithful=True,
            visibility_faithful=True,
            events_inverted_faithful=run["corrected"] != "mle",
            bce_faithful=run["corrected"] != "bce",
        )
        opt_g = build_optimizer("adam", g, config.opt_netG_lr, config.opt_netG_weight_decay)
        opt_d = build_optimizer("adam", d, config.opt_netD_lr)
        update = AdversarialUpdate(g, d, opt_g, opt_d, settings)
        bags, labels = make_bags(arrays, config.bcb_mode, dtype), make_labels(arrays, config, dtype)
        noise, before_g, before_d = draws(seed), snapshot(g), snapshot(d)
        log, predictions = [], []
        for _ in range(facts["steps"]):
            result = update.discriminator_step(bags, labels, run["semi_mask"], noise)
            log.append(result.log)
            predictions.append(result.predictions.numpy())
            log += [
                update.generator_step(bags, labels, run["semi_mask"], noise)
                for _ in range(config.gen_updates)
            ]
        got = {"log": log, "moved_G": moved(g, before_g), "moved_D": moved(d, before_d)}
        skip = config.loss_netD in ("hinge", "wasserstein")  # Adam amplifies their rounding
        compare(got, run[precision], precise=precision == "f64", skip_f32=skip)
        if precision == "f64":
            np.testing.assert_allclose(predictions, run["f64"]["preds_per_step"], atol=1e-9, rtol=1e-12)


@pytest.mark.parametrize("memory", ["bag", "group"])
@pytest.mark.parametrize("name", BASE_RUNS)
def test_baseline_run_equals_the_original(name, memory, golden_npz, golden_json, fill_golden_weights):
    arrays, facts = golden_npz("trajectories"), golden_json("trajectories")
    run, seed = facts["runs"][name], facts["seed"]
    for precision in ("f64", "f32"):
        dtype = torch.float64 if precision == "f64" else torch.float32
        config = Config(**{**SMALL, **BASE, **run["config"]}, memory=memory)
        net = fill_golden_weights(build_baseline(config), seed).to(dtype)
        settings = replace(
            BaselineSettings.from_config(config),
            cox_faithful=run["corrected"] != "cox",
            events_inverted_faithful=run["corrected"] != "nll",
        )
        optimizer = build_optimizer("adam", net, config.opt_net_lr, config.opt_net_weight_decay)
        update = BaselineUpdate(net, optimizer, settings)
        bags, labels = make_bags(arrays, config.bcb_mode, dtype), make_labels(arrays, config, dtype)
        before = snapshot(net)
        log = [update.step(bags, labels).log for _ in range(facts["steps"])]
        got = {"log": log, "moved": moved(net, before)}
        compare(got, run[precision], precise=precision == "f64", skip_f32=False)
