"""The original's loss functions under their names, faithful and corrected, against goldens."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from til_mtl.original import losses as original

ROUTINGS = ("sdsds", "sssss", "ddddd", "dsddd", "xxxxx")
TISSUE = ("dice0", "dice1", "dice2", "dice_total", "bce", "dice_loss", "loss")
CELLS = ("dice0", "dice1", "dice_total", "bce", "dice_loss", "loss", "froc")


@pytest.fixture(scope="module")
def golden(golden_json, golden_npz):
    return golden_json("losses") | golden_npz("losses")


def _inputs(golden, kind: str, faithful: bool, dtype=torch.float64):
    one_hot = {"seg": original.one_hot_label_seg, "det": original.one_hot_label_det}[kind]
    labels = one_hot(torch.from_numpy(golden[f"{kind}_mask"]), dtype=torch.float32, faithful=faithful)
    return torch.from_numpy(golden[f"{kind}_logits"]).to(dtype).requires_grad_(), labels.to(dtype)


def _check(found, golden, case: str, names, mode: str, suffix: str = "", rel: float = 1e-9) -> None:
    for name, value in zip(names, found, strict=True):
        expected = golden[f"{case}.{mode}.{name}{suffix}"]
        if expected is None:
            assert value is None or math.isnan(value)
        else:
            assert float(torch.as_tensor(value, dtype=torch.float64).detach()) == pytest.approx(
                expected, rel=rel, abs=1e-9
            ), name


@pytest.mark.parametrize("mode", ["original", "corrected"])
def test_golden_single_task_tissue(mode, golden):
    faithful = mode == "original"
    logits, labels = _inputs(golden, "seg", faithful)
    found = original.Class_wise_Dice_score(logits, labels, faithful=faithful)
    _check(found, golden, "stl_seg", TISSUE, mode)
    found[-1].backward()
    np.testing.assert_allclose(logits.grad, golden[f"stl_seg.{mode}.grad"], rtol=1e-5, atol=1e-9)
    assert float(logits.grad.norm()) == pytest.approx(golden[f"stl_seg.{mode}.grad_norm"], rel=1e-9)


@pytest.mark.parametrize("mode", ["original", "corrected"])
def test_golden_single_task_cells(mode, golden):
    faithful = mode == "original"
    logits, labels = _inputs(golden, "det", faithful)
    found = original.Class_Wise_TIL_Detection_FROC(logits, labels, faithful=faithful)
    _check(found, golden, "stl_det", CELLS, mode)
    found[-2].backward()
    assert float(logits.grad.norm()) == pytest.approx(golden[f"stl_det.{mode}.grad_norm"], rel=1e-9)


@pytest.mark.parametrize("mode", ["original", "corrected"])
@pytest.mark.parametrize("routing", ROUTINGS)
def test_golden_multi_task_tissue(routing, mode, golden):
    faithful, case = mode == "original", f"mtl_seg.{routing}"
    logits, labels = _inputs(golden, "seg", faithful)
    found = original.Class_wise_Dice_score_multi_task_learning(logits, labels, routing, 5, faithful=faithful)
    _check(found, golden, case, TISSUE, mode)
    if "s" in routing:
        found[-1].backward()
        np.testing.assert_allclose(logits.grad, golden[f"{case}.{mode}.grad"], rtol=1e-5, atol=1e-9)
        assert float(logits.grad.norm()) == pytest.approx(golden[f"{case}.{mode}.grad_norm"], rel=1e-9)


@pytest.mark.parametrize("mode", ["original", "corrected"])
@pytest.mark.parametrize("routing", ROUTINGS)
def test_golden_multi_task_cells(routing, mode, golden):
    faithful, case = mode == "original", f"mtl_det.{routing}"
    logits, labels = _inputs(golden, "det", faithful)
    found = original.Class_Wise_TIL_Detection_FROC_multi_task_learning(
        logits, labels, tuple(routing), 5, faithful=faithful
    )
    names = ("loss", "froc") if faithful else ("loss", "froc_pooled")
    if "d" in routing:
        _check(found, golden, case, names, mode)
        found[0].backward()
        assert float(logits.grad.norm()) == pytest.approx(golden[f"{case}.{mode}.grad_norm"], rel=1e-9)
    else:
        assert found == ((0.0, 0.0) if faithful else (None, None))


def test_golden_float32(golden):
    logits, labels = _inputs(golden, "seg", True, torch.float32)
    found = original.Class_wise_Dice_score(logits, labels, faithful=True)
    _check(found, golden, "stl_seg", TISSUE, "original", "_f32", rel=1e-6)
    for routing in ("sdsds", "sssss", "dsddd"):
        found = original.Class_wise_Dice_score_multi_task_learning(logits, labels, routing, 5, faithful=True)
        _check(found, golden, f"mtl_seg.{routing}", TISSUE, "original", "_f32", rel=1e-6)
    logits, labels = _inputs(golden, "det", True, torch.float32)
    found = original.Class_Wise_TIL_Detection_FROC(logits, labels, faithful=True)
    _check(found, golden, "stl_det", CELLS, "original", "_f32", rel=1e-6)


def test_the_batch_size_limits_the_samples(golden):
    logits, labels = _inputs(golden, "seg", False)
    two = original.Class_wise_Dice_score_multi_task_learning(logits, labels, "sssss", 2)
    same = original.Class_wise_Dice_score_multi_task_learning(logits[:2], labels[:2], "ss")
    assert [float(a) for a in two] == [float(b) for b in same]


def test_an_absent_class_is_undefined_unless_faithful():
    logits = torch.tensor([5.0, -5, -5]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    labels = original.one_hot_label_seg(torch.zeros(1, 4, 4, dtype=torch.long))
    corrected = original.Class_wise_Dice_score(logits, labels)
    faithful = original.Class_wise_Dice_score(logits, labels, faithful=True)
    assert [math.isnan(value) for value in corrected[:3]] == [False, True, True]
    assert [float(value) for value in faithful[1:3]] == pytest.approx([0, 0], abs=1e-3)
