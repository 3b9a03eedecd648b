"""One-hot labels against goldens and the original's 251 channels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from til_mtl.errors import DataError
from til_mtl.one_hot import one_hot_label, one_hot_label_det, one_hot_label_seg


@pytest.mark.parametrize(("name", "function"), [("seg", one_hot_label_seg), ("det", one_hot_label_det)])
def test_golden_one_hot(name, function, golden_npz):
    golden = golden_npz("losses")
    labels = torch.from_numpy(golden[f"{name}_mask"])
    hot = function(labels, faithful=True)
    assert hot.dtype == torch.float32
    np.testing.assert_array_equal(hot.numpy(), golden[f"onehot_{name}_f32"])
    np.testing.assert_array_equal(function(labels).numpy(), np.round(golden[f"onehot_{name}_f32"]))


@given(
    labels=st.lists(st.integers(0, 250), min_size=6, max_size=6),
    classes=st.integers(1, 4),
    exact=st.booleans(),
)
def test_equals_scattering_into_251_channels(labels, classes, exact):
    mask = torch.tensor(labels).view(1, 2, 3)
    scattered = torch.zeros(1, 251, 2, 3, dtype=torch.int32).scatter_(1, mask.unsqueeze(1), 1)
    expected = scattered.float() if exact else scattered + 1e-6
    assert torch.equal(one_hot_label(mask, classes, faithful=not exact), expected[:, :classes])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.full((1, 2, 2), 251), "largest value is 251; expected classes 0 to 2, or 250"),
        (torch.zeros(1, 2, 2), r"expected integers \[B, H, W\], found torch.float32"),
        (torch.zeros(2, 2, dtype=torch.long), r"of shape \[2, 2\]"),
    ],
)
def test_bad_labels(labels, message):
    with pytest.raises(DataError, match=message):
        one_hot_label_seg(labels)


def test_types():
    labels = torch.tensor([[[0, 2], [1, 250]]], dtype=torch.uint8)
    assert one_hot_label(labels, dtype=torch.float64).dtype == torch.float64
    assert one_hot_label(labels).sum().item() == 3
