"""Optimiser steps of the three networks against goldens: losses, first gradients, weights afterwards."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from til_mtl.losses import cell_loss, tissue_loss, total_loss
from til_mtl.models.deeplab import TilNetwork

LETTERS = "sdsd"
TASKS = {"mtl": ("mtl", "sd"), "stl_seg": ("seg", "s"), "stl_det": ("det", "d")}
OPTIONS = {
    "original": {"freeze_bn": False},
    "corrected": {"freeze_bn": True},
    "unfrozen": {"freeze_until": None, "freeze_bn": False},
}


def _batch(golden: dict[str, np.ndarray], task: str, dtype: torch.dtype):
    """Images, labels, and the positions of tissue and cell patches; single-task runs get their own patches only."""
    letters = [letter for letter in LETTERS if task == "mtl" or letter == task[0]]
    rows = [i for i, letter in enumerate(LETTERS) if letter in letters]
    x = torch.from_numpy(golden["x"])[rows].to(dtype)
    labels = torch.from_numpy(golden["mask"])[rows].long()
    return x, labels, *([i for i, letter in enumerate(letters) if letter == wanted] for wanted in "sd")


def _step(network: TilNetwork, batch, *, exact: bool):
    x, labels, tissue_rows, cell_rows = batch
    maps = network.maps(x)
    tissue = cells = None
    if maps.seg is not None:
        tissue = tissue_loss(
            maps.seg[tissue_rows], labels[tissue_rows], exact=exact, per_sample_dice=network.task == "mtl"
        )
    if maps.det is not None:
        cells = cell_loss(maps.det[cell_rows], labels[cell_rows], exact=exact)
    weights = (0.13, 0.87) if network.task == "mtl" else (1.0, 1.0)
    return total_loss(tissue, cells, weights), tissue, cells


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "mode", "dtype"),
    [
        *((run, mode, "f64") for run in TASKS for mode in ("original", "corrected")),
        ("mtl", "unfrozen", "f64"),
        *((run, "original", "f32") for run in TASKS),
    ],
)
def test_golden_steps(run, mode, dtype, golden_npz, golden_json, build_golden):
    golden, about = golden_npz("training"), golden_json("training")
    kind = torch.float64 if dtype == "f64" else torch.float32
    network = build_golden(run, kind, **OPTIONS[mode]).train()
    parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
    optimiser = torch.optim.Adam(parameters.values(), lr=0.001, weight_decay=0.001, fused=True)  # as runs do
    batch = _batch(golden, TASKS[run][0], kind)
    expected = golden[f"{run}.{mode}.{dtype}.losses"]
    losses = []
    for index in range(len(expected)):
        loss, tissue, cells = _step(network, batch, exact=mode == "corrected")
        optimiser.zero_grad()
        loss.backward()
        losses.append([loss.item()])
        if tissue is not None and cells is not None:
            losses[-1] += [tissue.loss.item(), cells.loss.item()]
        first = about.get(f"{run}.{mode}.{dtype}.first_grad_norms")
        if index == 0 and first is not None:
            _check_gradients(network, first)
        optimiser.step()
    if dtype == "f64":
        np.testing.assert_allclose(losses, expected, rtol=1e-9)
    else:  # rounding is amplified from step to step
        np.testing.assert_allclose(losses[0], expected[0], rtol=1e-5)
        np.testing.assert_allclose(losses, expected, rtol=0.02)
    state = network.state_dict()
    for key, norm in about[f"{run}.{mode}.{dtype}.norms_after"].items():
        assert float(state[key].double().norm()) == pytest.approx(norm, rel=1e-9 if dtype == "f64" else 0.02)


def _check_gradients(network: TilNetwork, first: dict[str, float | None]) -> None:
    for name, parameter in network.named_parameters():
        if first[name] is None:
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None, name
            # Biases before a batch norm have gradient 0 but for rounding.
            assert float(parameter.grad.norm()) == pytest.approx(first[name], rel=1e-8, abs=1e-14), name


@pytest.mark.parametrize(
    ("script", "run"), [("main", "mtl"), ("Seg_main", "stl_seg"), ("det_main", "stl_det")]
)
def test_golden_logged_values(script, run, golden_npz, golden_json, golden_network):
    logged = golden_json("training")["logged"][f"{script}.validation_step"]
    batch = _batch(golden_npz("training"), TASKS[run][0], torch.float32)
    with torch.no_grad():
        loss, tissue, cells = _step(golden_network(run, torch.float32), batch, exact=False)
    found = {"returned": loss, "val_loss": loss}
    if tissue is not None:
        found |= {
            "val_bce_loss": tissue.bce,
            "val_dice_loss": tissue.dice_loss,
            "val_dice3": tissue.dice_total,
        }
        found |= dict(zip(("val_dice_other", "val_dice_tumor", "val_dice_stroma"), tissue.dice, strict=True))
        found["val_loss_seg"] = tissue.loss
    if cells is not None:
        found["val_loss_det"] = cells.loss
        if run == "stl_det":
            found["val_bce_loss"] = cells.bce
            found |= dict(zip(("val_dice_background", "val_dice_lymphocytes"), cells.dice, strict=True))
    for name, value in logged.items():
        if name != "val_froc":  # sensitive to rounding
            assert float(found[name]) == pytest.approx(value, rel=1e-5), name
