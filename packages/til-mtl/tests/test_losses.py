"""Losses of both tasks: goldens, ignored pixels, absent classes and tasks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from til_mtl.errors import TrainingError
from til_mtl.losses import (
    CellTerms,
    TissueTerms,
    UncertaintyWeighting,
    cell_loss,
    confusion_counts,
    tissue_loss,
    total_loss,
)

ROUTINGS = ("sdsds", "sssss", "ddddd", "dsddd", "xxxxx")


@pytest.fixture(scope="module")
def golden(golden_json, golden_npz):
    return golden_json("losses") | golden_npz("losses")


def _inputs(golden, kind: str, letters: str = "", letter: str = "", dtype=torch.float64):
    """Logits and labels of the golden batch, all samples or those of a routing."""
    rows = [i for i, name in enumerate(letters) if name == letter] if letters else list(range(5))
    logits = torch.from_numpy(golden[f"{kind}_logits"])[rows].to(dtype)
    return logits.requires_grad_(), torch.from_numpy(golden[f"{kind}_mask"])[rows], rows


def _tissue_values(terms: TissueTerms) -> dict[str, float]:
    names = ("loss", "bce", "dice_loss", "dice_total")
    values = {name: float(getattr(terms, name)) for name in names}
    return values | {f"dice{c}": float(value) for c, value in enumerate(terms.dice)}


@pytest.mark.parametrize("case", ["stl_seg", *(f"mtl_seg.{routing}" for routing in ROUTINGS)])
def test_golden_tissue_loss_with_the_originals_labels(case, golden):
    logits, labels, rows = _inputs(golden, "seg", case.partition(".")[2], "s")
    terms = tissue_loss(logits, labels, exact=False, per_sample_dice=case != "stl_seg")
    if not rows:
        assert terms is None
        return
    assert terms is not None
    for name, value in _tissue_values(terms).items():
        assert value == pytest.approx(golden[f"{case}.original.{name}"], rel=1e-9)
    terms.loss.backward()
    expected = golden[f"{case}.original.grad"][rows]
    np.testing.assert_allclose(logits.grad, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())
    single = tissue_loss(logits.detach().float(), labels, exact=False, per_sample_dice=case != "stl_seg")
    assert single is not None
    for name, value in _tissue_values(single).items():
        assert value == pytest.approx(golden[f"{case}.original.{name}_f32"], rel=2e-6, abs=1e-8)


@pytest.mark.parametrize("case", ["mtl_seg.dsddd"])
def test_golden_exact_tissue_loss_where_every_pixel_is_annotated(case, golden):
    logits, labels, rows = _inputs(golden, "seg", case.partition(".")[2], "s")
    assert int(labels.max()) < 3
    terms = tissue_loss(logits, labels)
    assert terms is not None
    for name, value in _tissue_values(terms).items():
        assert value == pytest.approx(golden[f"{case}.corrected.{name}"], rel=1e-9)
    terms.loss.backward()
    expected = golden[f"{case}.corrected.grad"][rows]
    np.testing.assert_allclose(logits.grad, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("case", ["stl_det", *(f"mtl_det.{routing}" for routing in ROUTINGS)])
def test_golden_cell_loss(case, exact, golden):
    logits, labels, rows = _inputs(golden, "det", case.partition(".")[2], "d")
    terms = cell_loss(logits, labels, exact=exact)
    mode = "corrected" if exact else "original"
    if not rows:
        assert terms is None
        return
    assert terms is not None
    assert float(terms.loss) == pytest.approx(golden[f"{case}.{mode}.loss"], rel=1e-9)
    if case == "stl_det":
        found = [float(terms.bce), *terms.dice.tolist()]
        expected = [golden[f"{case}.{mode}.{name}"] for name in ("bce", "dice0", "dice1")]
        assert found == pytest.approx(expected, rel=1e-9)
    terms.loss.backward()
    expected = golden[f"{case}.{mode}.grad"][rows]
    np.testing.assert_allclose(logits.grad, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("per_sample_dice", [True, False])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_ignored_pixels_are_as_if_cut_out(per_sample_dice, seed):
    """Whole columns are ignored, so that the rest is an image again."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, 4, 6, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (2, 4, 6), generator=generator)
    holes = labels.clone()
    holes[:, :, 4:] = 250
    masked = tissue_loss(logits, holes, per_sample_dice=per_sample_dice)
    cut = tissue_loss(logits[..., :4], labels[..., :4], per_sample_dice=per_sample_dice)
    assert masked is not None
    assert cut is not None
    assert _tissue_values(masked) == pytest.approx(_tissue_values(cut), rel=1e-12, nan_ok=True)
    assert torch.equal(masked.confusion, cut.confusion)
    cells, cut_cells = cell_loss(logits, holes), cell_loss(logits[..., :4], labels[..., :4])
    assert cells is not None
    assert cut_cells is not None
    assert float(cells.loss) == pytest.approx(float(cut_cells.loss), rel=1e-12)


def test_ignored_pixels_get_no_gradient_and_other_values_none_either():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    labels = torch.randint(0, 3, (2, 4, 4))
    labels[0, :2] = 250
    terms = tissue_loss(logits, labels)
    assert terms is not None
    terms.loss.backward()
    assert logits.grad is not None
    assert torch.count_nonzero(logits.grad[0, :, :2]) == 0
    assert torch.count_nonzero(logits.grad[0, :, 2:]) > 0


def test_a_patch_without_annotation_changes_nothing():
    logits = torch.randn(3, 3, 4, 4, dtype=torch.float64)
    labels = torch.randint(0, 3, (3, 4, 4))
    labels[1] = 250
    one, other = tissue_loss(logits, labels), tissue_loss(logits[[0, 2]], labels[[0, 2]])
    assert one is not None
    assert other is not None
    assert _tissue_values(one) == pytest.approx(_tissue_values(other), nan_ok=True)
    nothing = tissue_loss(logits.requires_grad_(), torch.full_like(labels, 250))
    assert nothing is not None
    nothing.loss.backward()
    assert float(nothing.loss) == 0
    assert logits.grad is not None
    assert torch.count_nonzero(logits.grad) == 0


def test_formula_by_hand():
    logits = torch.tensor([[2.0, -1.0], [0.5, 0.5], [-1.0, 3.0]], dtype=torch.float64).view(1, 3, 1, 2)
    labels = torch.tensor([[[0, 2]]])
    p = np.exp([[2, 0.5, -1], [-1, 0.5, 3]])
    p /= p.sum(1, keepdims=True)
    y = np.array([[1, 0, 0], [0, 0, 1]])
    dice = 2 * (p * y).sum() / (p.sum() + y.sum() + 3e-8)
    x = np.array([[2, 0.5, -1], [-1, 0.5, 3]])
    bce = (np.logaddexp(0, x) - x * y).mean()
    terms = tissue_loss(logits, labels)
    assert terms is not None
    assert float(terms.loss) == pytest.approx(1 - dice + 0.01 * bce, rel=1e-12)
    assert math.isnan(terms.dice[1])


@pytest.mark.parametrize("size", [3, 8])
def test_saturated_logits(size, golden):
    """Only class 0, in truth and prediction: the original's Dice of the others is about 0, ours undefined."""
    logits = torch.tensor([200.0, -200, -200], dtype=torch.float64).view(1, 3, 1, 1).expand(1, 3, size, size)
    labels = torch.zeros(1, size, size, dtype=torch.long)
    original, exact = tissue_loss(logits, labels, exact=False), tissue_loss(logits, labels)
    assert original is not None
    assert exact is not None
    found = [*original.dice, original.dice_total, original.bce, original.dice_loss, original.loss]
    # Independent of the number of pixels but for the 1e-8 of the union.
    expected = golden["corner.perfect_single_class.original"]
    assert [float(v) for v in found] == pytest.approx(expected, rel=2e-2, abs=1e-8)
    dice = [None if math.isnan(v) else float(v) for v in exact.dice]
    assert dice == pytest.approx(golden["corner.perfect_single_class.corrected_dice"])


def test_confusion_is_a_count_of_pairs():
    logits, labels = torch.randn(2, 3, 8, 8), torch.randint(0, 4, (2, 8, 8))
    labels[labels == 3] = 250
    expected = torch.zeros(3, 3, dtype=torch.int64)
    for truth, predicted in zip(labels.flatten(), logits.argmax(1).flatten(), strict=True):
        if truth < 3:
            expected[truth, predicted] += 1
    assert torch.equal(confusion_counts(logits, labels), expected)


def test_dice_weight_of_cells():
    logits, labels = torch.randn(2, 2, 5, 5), torch.randint(0, 2, (2, 5, 5))
    plain, weighted = cell_loss(logits, labels), cell_loss(logits, labels, dice_weight=0.5)
    assert plain is not None
    assert weighted is not None
    dice = 2 * plain.sums[0].sum() / plain.sums[1].sum()
    assert float(weighted.loss) == pytest.approx(float(plain.loss + 0.5 * (1 - dice)))
    hot = functional.one_hot(labels, 2).permute(0, 3, 1, 2).float()
    assert float(plain.loss) == pytest.approx(
        float(functional.binary_cross_entropy(logits.sigmoid(), hot)), rel=1e-5
    )


def test_half_precision_logits_are_summed_in_float32():
    logits, labels = torch.randn(1, 3, 64, 64), torch.randint(0, 3, (1, 64, 64))
    half, full = tissue_loss(logits.bfloat16(), labels), tissue_loss(logits, labels)
    assert half is not None
    assert full is not None
    assert half.loss.dtype == torch.float32
    assert float(half.loss) == pytest.approx(float(full.loss), abs=2e-3)


def _terms() -> tuple[TissueTerms, CellTerms]:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 3, 4, 4, generator=generator)
    tissue = tissue_loss(logits, torch.randint(0, 3, (2, 4, 4), generator=generator))
    cells = cell_loss(logits[:, :2], torch.randint(0, 2, (2, 4, 4), generator=generator))
    assert tissue is not None
    assert cells is not None
    return tissue, cells


def test_total_is_the_weighted_sum_of_what_is_there():
    tissue, cells = _terms()
    assert float(total_loss(tissue, cells)) == pytest.approx(
        0.13 * float(tissue.loss) + 0.87 * float(cells.loss)
    )
    assert float(total_loss(tissue, None)) == pytest.approx(0.13 * float(tissue.loss))
    assert float(total_loss(None, cells, (1.0, 2.0))) == pytest.approx(2 * float(cells.loss))
    with pytest.raises(TrainingError, match="without tissue and without cell patches"):
        total_loss(None, None)


def test_uncertainty_weighting():
    tissue, cells = _terms()
    weighting = UncertaintyWeighting()
    assert float(weighting(tissue, cells)) == pytest.approx(float(total_loss(tissue, cells)))
    with torch.no_grad():
        weighting.log_variance.copy_(torch.tensor([0.5, -1.0]))
    expected = (
        0.13 * math.exp(-0.5) * float(tissue.loss) + 0.87 * math.e * float(cells.loss) + 0.5 * (0.5 - 1)
    )
    assert float(weighting(tissue, cells)) == pytest.approx(expected, rel=1e-6)
    weighting(tissue, None).backward()
    gradient = weighting.log_variance.grad
    assert gradient is not None
    assert gradient[0] != 0
    assert gradient[1] == 0
