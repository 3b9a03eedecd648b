"""What an epoch logs, pooled and as the original."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from til_mtl.config import Config
from til_mtl.epoch_values import EpochValues
from til_mtl.losses import cell_loss, tissue_loss, total_loss


def steps(n_batches: int = 4, seed: int = 0):
    """Yield logits and labels of batches with varying numbers of tissue (t) and cell (c) patches."""
    generator = torch.Generator().manual_seed(seed)
    for t, c in ((3, 2), (5, 0), (0, 5), (1, 1))[:n_batches]:
        seg = torch.randn(t, 3, 8, 8, generator=generator, dtype=torch.float64)
        det = torch.randn(c, 2, 8, 8, generator=generator, dtype=torch.float64)
        masks = torch.randint(0, 3, (t, 8, 8), generator=generator)
        cells = torch.randint(0, 2, (c, 8, 8), generator=generator)
        yield seg, masks, det, cells


def epoch(config: Config) -> tuple[EpochValues, list]:
    values, seen = EpochValues(config.resolved()), []
    for seg, masks, det, cells in steps():
        tissue, found = tissue_loss(seg, masks), cell_loss(det, cells)
        total = total_loss(tissue, found)
        values.add(tissue, found, total, len(seg) + len(det))
        seen.append((tissue, found, total, len(seg) + len(det)))
    return values, seen


def test_losses_are_means_over_the_samples_of_their_task():
    values, seen = epoch(Config())
    found = values.values("val")
    seg = sum(float(t.loss) * t.n for t, *_ in seen if t) / 9
    det = sum(float(c.loss) * c.n for _, c, *_ in seen if c) / 8
    assert found["val_loss_seg"] == pytest.approx(seg)
    assert found["val_loss_det"] == pytest.approx(det)
    assert found["val_loss"] == pytest.approx(0.13 * seg + 0.87 * det)


def test_dice_comes_from_sums_over_the_epoch():
    values, _ = epoch(Config())
    seg, masks = (torch.cat(parts) for parts in zip(*[(s, m) for s, m, *_ in steps()], strict=True))
    p, y = seg.softmax(1), torch.nn.functional.one_hot(masks, 3).permute(0, 3, 1, 2)
    dice = 2 * (p * y).sum((0, 2, 3)) / (p + y).sum((0, 2, 3))
    found = values.values("val")
    assert [found[f"val_dice_{n}"] for n in ("other", "tumor", "stroma")] == pytest.approx(dice.tolist())
    hard = seg.argmax(1)
    for c, name in enumerate(("other", "tumor", "stroma")):
        both = ((hard == c) & (masks == c)).sum()
        wanted = 2 * both / ((hard == c).sum() + (masks == c).sum())
        assert found[f"val_dice_hard_{name}"] == pytest.approx(wanted.item())


def test_the_original_averages_steps_and_counts_absent_tasks_as_zero():
    values, seen = epoch(Config(faithful=True))
    found = values.values("val")
    n = sum(size for *_, size in seen)
    assert found["val_loss"] == pytest.approx(sum(float(total) * size for *_, total, size in seen) / n)
    assert found["val_loss_seg"] == pytest.approx(
        sum(float(t.loss) * size for t, _, _, size in seen if t) / n
    )
    assert found["val_dice_tumor"] == pytest.approx(
        sum(float(t.dice[1]) * size for t, _, _, size in seen if t) / n
    )


def test_the_faithful_loss_depends_on_the_sizes_of_the_sets_and_the_pooled_one_does_not():
    seg, masks, det, cells = next(steps())
    tissue, found = tissue_loss(seg, masks), cell_loss(det, cells)
    results = {}
    for faithful in (False, True):
        for repeats in (1, 3):
            values = EpochValues(Config(faithful=faithful).resolved())
            for _ in range(repeats):
                values.add(tissue, None, total_loss(tissue, None), len(seg))
            values.add(None, found, total_loss(None, found), len(det))
            results[faithful, repeats] = values.values("val")["val_loss"]
    assert results[False, 1] == pytest.approx(results[False, 3])
    assert results[True, 1] != pytest.approx(results[True, 3], rel=0.05)


def test_a_task_without_patches_is_not_a_number_and_left_out():
    seg, masks, *_ = next(steps())
    tissue = tissue_loss(seg, masks)
    values = EpochValues(Config().resolved())
    values.add(tissue, None, total_loss(tissue, None), len(seg))
    found = values.values("val", froc=math.nan)
    assert math.isnan(found["val_loss_det"])
    assert found["val_loss"] == pytest.approx(0.13 * float(tissue.loss))
    assert math.isnan(found["val_froc"])


def test_an_epoch_goes_on_from_its_state():
    whole, seen = epoch(Config())
    first, second = EpochValues(Config().resolved()), EpochValues(Config().resolved())
    for step in seen[:2]:
        first.add(*step)
    second.load_state(first.state())
    for step in seen[2:]:
        second.add(*step)
    assert second.values("train") == whole.values("train")


def test_a_loss_that_is_not_finite_stays_so():
    seg, masks, *_ = next(steps())
    tissue = tissue_loss(seg * math.nan, masks)
    values = EpochValues(Config(task="seg").resolved())
    values.add(tissue, None, tissue.loss, len(seg))
    assert math.isnan(values.values("train")["train_loss"])


def test_froc_of_batches_is_weighted_by_their_size():
    values = EpochValues(Config(task="det", faithful=True).resolved())
    for froc, n in ((0.5, 5), (1.0, 1)):
        cells = cell_loss(torch.zeros(n, 2, 4, 4), torch.zeros(n, 4, 4, dtype=torch.int64))
        values.add(None, cells, cells.loss, n, froc)
    assert values.values("train")["train_froc"] == pytest.approx((0.5 * 5 + 1) / 6)
    assert np.isfinite(values.values("train")["train_dice_background"])


def test_a_loss_that_is_not_a_number_is_not_taken_for_an_absent_task():
    values = EpochValues(Config().resolved())
    seg, masks, det, cells = next(steps())
    tissue, found = tissue_loss(torch.full_like(seg, math.nan), masks), cell_loss(det, cells)
    values.add(tissue, found, total_loss(tissue, found), len(seg) + len(det))
    assert math.isnan(values.values("val")["val_loss"])
