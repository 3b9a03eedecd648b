"""Dice, precision, recall and Hausdorff distances of known masks."""

from __future__ import annotations

import numpy as np
import pytest

from medshared.metrics.segmentation import overlap
from medshared.metrics.surfaces import hausdorff


def test_golden_masks(golden_json):
    cases = golden_json("voxel_metrics")["cases"]
    assert len(cases) == 16
    for case in cases:
        p, t = (
            np.unpackbits(np.array(case[key], np.uint8), count=np.prod(case["shape"]))
            .reshape(case["shape"])
            .astype(bool)
            for key in ("pred_packbits", "target_packbits")
        )
        found = overlap(p, t)
        assert (found.tp, found.fp, found.fn) == (case["tp"], case["fp"], case["fn"])
        measured = {
            "dice": found.dice,
            "precision": found.precision,
            "recall": found.recall,
            "hd95": hausdorff(p, t, case["spacing"]),
            "hd100": hausdorff(p, t, case["spacing"], 100),
        }
        for key, value in measured.items():
            expected = np.nan if case[key] is None else case[key]
            assert value == pytest.approx(expected, abs=1e-9, nan_ok=True), (case["case"], key)
