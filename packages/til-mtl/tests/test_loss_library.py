"""The unused loss library against goldens, and where it departs from the original."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from til_mtl import loss_library as library

COUNT_LOSSES = ("SoftDiceLoss", "IoULoss", "TverskyLoss", "AsymLoss", "SSLoss")


@pytest.fixture(scope="module")
def data(golden_npz) -> dict[str, torch.Tensor]:
    arrays = {key: torch.from_numpy(value) for key, value in golden_npz("loss_library").items()}
    arrays["hot"] = functional.one_hot(arrays["y"], 4).permute(0, 3, 1, 2).double()
    arrays["hot5"] = functional.one_hot(arrays["y5"], 4).permute(0, 4, 1, 2, 3).double()
    arrays["p"] = arrays["x"].softmax(1)
    return arrays


@pytest.fixture(scope="module")
def golden(golden_json):
    return golden_json("loss_library")


def _check(expected, loss, x: torch.Tensor) -> None:
    """Compare the value and the norm of its gradient with regard to x."""
    leaf = x.clone().requires_grad_()
    value = loss(leaf)
    value = value[0] if isinstance(value, tuple) else value
    np.testing.assert_allclose(value.detach().numpy(), expected["value"], rtol=1e-9)
    value.sum().backward()
    assert leaf.grad is not None
    if "grad_norm" in expected:
        assert float(leaf.grad.norm()) == pytest.approx(expected["grad_norm"], rel=1e-8, abs=1e-15)


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("do_bg", [False, True])
@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("name", COUNT_LOSSES)
def test_golden_count_losses(name, batch_dice, do_bg, square, golden, data):
    loss = getattr(library, name)(library.softmax_helper, batch_dice, do_bg, square=square)
    key = f"{name}.batch{batch_dice:d}_bg{do_bg:d}_sq{square:d}"
    _check(golden[key], lambda x: loss(x, data["hot"]), data["x"])


@pytest.mark.parametrize("name", COUNT_LOSSES[:-1])
def test_golden_options_of_count_losses(name, golden, data):
    kind, softmax = getattr(library, name), library.softmax_helper
    x, hot = data["x"], data["hot"]
    _check(golden[f"{name}.index_target"], lambda t: kind(softmax)(t, data["y"]), x)
    _check(golden[f"{name}.masked"], lambda t: kind(softmax)(t, hot, loss_mask=data["loss_mask"]), x)
    _check(golden[f"{name}.no_nonlin"], lambda t: kind()(t, hot), data["p"])
    _check(golden[f"{name}.smooth0.5"], lambda t: kind(softmax, smooth=0.5)(t, hot), x)


CASES = {
    "FocalTversky.original": lambda x, d: library.FocalTversky_loss(
        {"apply_nonlin": library.softmax_helper}, faithful=True
    )(x, d["hot"]),
    "FocalTversky.corrected": lambda x, d: library.FocalTversky_loss(
        {"apply_nonlin": library.softmax_helper}
    )(x, d["hot"]),
    "GDiceLossV2.4d": lambda x, d: library.GDiceLossV2(library.softmax_helper)(x, d["hot"]),
    "GDiceLossV2.index_target": lambda x, d: library.GDiceLossV2(library.softmax_helper)(x, d["y"]),
    "mIoULoss": lambda x, d: library.mIoULoss()(x, d["y"]),
    "BinaryDiceLoss.mean": lambda x, d: _binary(x, d),
    "BinaryDiceLoss.sum": lambda x, d: _binary(x, d, reduction="sum"),
    "BinaryDiceLoss.none": lambda x, d: _binary(x, d, reduction="none"),
    "BinaryDiceLoss.p1": lambda x, d: _binary(x, d, p=1),
    "DiceLoss": lambda x, d: library.DiceLoss(faithful=True)(x, d["hot"]),
    "DiceLoss.corrected_factor2": lambda x, d: library.DiceLoss()(x, d["hot"]),
    "DiceLoss.ignore0": lambda x, d: library.DiceLoss(ignore_index=0, faithful=True)(x, d["hot"]),
    "DiceBCELoss": lambda x, d: library.DiceBCELoss(faithful=True)(x, d["hot"]),
    "DiceBCELoss.w0.3": lambda x, d: library.DiceBCELoss(weight=0.3, faithful=True)(x, d["hot"]),
    "diceloss": lambda x, d: library.diceloss(x.sigmoid(), d["hot"]),
    "softmax_helper_sum_of_squares": lambda x, d: (library.softmax_helper(x) ** 2).sum(),
}


def _binary(x: torch.Tensor, data, **options) -> torch.Tensor:
    return library.BinaryDiceLoss(faithful=True, **options)(x[:, 0].sigmoid(), data["hot"][:, 0])


@pytest.mark.parametrize("case", CASES)
def test_golden_other_losses(case, golden, data):
    _check(golden[case], lambda x: CASES[case](x, data), data["x"])


@pytest.mark.parametrize("case", ["GDiceLoss.5d", "GDiceLossV2.5d"])
def test_golden_volumes(case, golden, data):
    kind = getattr(library, case.partition(".")[0])
    _check(golden[case], lambda x: kind(library.softmax_helper)(x, data["hot5"]), data["x5"])


def test_golden_utilities(data):
    counts = library.get_tp_fp_fn(data["p"], data["y"])
    for name, value in zip(("tp", "fp", "fn"), counts, strict=True):
        torch.testing.assert_close(value, data[name], rtol=1e-12, atol=0)
    torch.testing.assert_close(library.flatten(data["x"]), data["flatten"], rtol=0, atol=0)
    summed = library.sum_tensor(data["x"], (0, 2, 2), keepdim=True)
    torch.testing.assert_close(summed, data["sum_tensor_0_2_keep"], rtol=1e-12, atol=1e-12)


def test_what_fails_in_the_original_works_here(golden, data):
    x, hot, p = data["x"], data["hot"], data["p"]
    failing = {key for key, value in golden.items() if "error" in value}
    fixed = {
        "GDiceLoss.4d": (library.GDiceLoss(library.softmax_helper)(x, hot), None),
        "SSLoss.no_nonlin": (library.SSLoss()(p, hot), library.SSLoss(library.softmax_helper)(x, hot)),
        "GDiceLossV2.no_nonlin": (
            library.GDiceLossV2()(p, hot),
            library.GDiceLossV2(library.softmax_helper)(x, hot),
        ),
        "DiceLoss.weighted": (
            library.DiceLoss(weight=torch.ones(4))(x, hot),
            library.DiceLoss()(x, hot),
        ),
    }
    assert failing == {*fixed, "BinaryDiceLoss.bad_reduction"}
    for found, expected in fixed.values():
        assert torch.isfinite(found)
        if expected is not None:
            torch.testing.assert_close(found, expected)
    volume = library.GDiceLoss(library.softmax_helper)(x.unsqueeze(-1), hot.unsqueeze(-1))
    torch.testing.assert_close(fixed["GDiceLoss.4d"][0], volume)
    with pytest.raises(ValueError, match="expected mean, sum or none, found 'median'"):
        library.BinaryDiceLoss(reduction="median")  # type: ignore[arg-type]


def test_perfect_predictions_cost_nothing_unless_faithful(golden, data):
    hot, sure = data["hot"], (data["hot"] - 0.5) * 400
    assert float(library.DiceLoss()(sure, hot)) == pytest.approx(0, abs=1e-9)
    assert float(library.DiceLoss(faithful=True)(sure, hot)) == pytest.approx(
        golden["DiceLoss.perfect"]["value"], rel=1e-9
    )
    assert float(library.BinaryDiceLoss()(hot[:, 0], hot[:, 0])) == pytest.approx(0, abs=1e-9)
    focal = library.FocalTversky_loss()
    assert float(focal(hot, hot)) == pytest.approx(0, abs=1e-9)


def test_an_absent_class_has_dice_1_unless_faithful(golden_json):
    """One class everywhere, on 4x4 pixels, logits of ±200."""
    logits = torch.tensor([200.0, -200, -200], dtype=torch.float64).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    hot = torch.zeros(1, 3, 4, 4, dtype=torch.float64)
    hot[:, 0] = 1
    faithful = [float(v) for v in library.DiceBCELoss(faithful=True)(logits, hot)]
    assert faithful == pytest.approx(
        golden_json("losses")["corner.perfect_single_class.dicebce_exact_onehot"], rel=1e-9
    )
    corrected = [float(v) for v in library.DiceBCELoss()(logits, hot)]
    assert corrected == pytest.approx([0, 1], abs=1e-9)


def test_a_class_left_out_does_not_count_in_the_mean(data):
    x, hot = data["x"], data["hot"]
    kept = [library.BinaryDiceLoss()(x.softmax(1)[:, c], hot[:, c]) for c in (1, 2, 3)]
    torch.testing.assert_close(library.DiceLoss(ignore_index=0)(x, hot), torch.stack(kept).mean())
    weighted = library.DiceLoss(weight=torch.tensor([0.0, 3, 0, 0]), ignore_index=0)(x, hot)
    torch.testing.assert_close(weighted, kept[0])


def test_mask_of_sensitivity_and_specificity_counts_only_its_pixels(data):
    p, hot = data["p"], data["hot"]
    mask = torch.zeros_like(hot[:, :1])
    mask[..., :4] = 1
    torch.testing.assert_close(
        library.SSLoss()(p, hot, loss_mask=mask), library.SSLoss()(p[..., :4], hot[..., :4])
    )


def test_one_hot_utilities():
    classes = torch.tensor([[[[0, 2], [1, 1]]]])
    hot = library.make_one_hot(classes, 3)
    assert torch.equal(hot.argmax(1, keepdim=True), classes)
    assert hot.sum() == 4
    seg = np.array([[0, 5], [7, 5]])
    np.testing.assert_array_equal(library.to_one_hot(seg)[1], seg == 5)
    assert library.to_one_hot(seg, [5, 9]).sum(axis=(1, 2)).tolist() == [2, 0]


def test_mismatched_shapes_are_named(data):
    with pytest.raises(ValueError, match="batches of 2 predictions and 1 labels"):
        library.BinaryDiceLoss()(data["p"], data["p"][:1])
    with pytest.raises(ValueError, match=r"logits \[2, 4, 9, 7\] and one-hot labels \[2, 9, 7\] differ"):
        library.DiceLoss()(data["x"], data["y"])
