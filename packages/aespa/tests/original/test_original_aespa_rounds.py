"""The faithful order of training AESPA repeats the original's losses, gradients and changes, step by step."""

from __future__ import annotations

import pytest
import torch

from aespa.clicks import Clicks
from aespa.original.aespa_rounds import aespa_rounds


@pytest.mark.slow
def test_golden_order_of_aespa(recorded, to_xy):
    run = recorded("trajectory_aespa")
    golden, seen = run.golden, []

    def click(probabilities, followed):
        index = len(seen)
        seen.append(followed.tolist())
        assert probabilities.shape == (2, 128, 128)
        return Clicks(
            to_xy(golden["clicks_yx"][index]),
            torch.from_numpy(golden["click_labels"][index]),
            torch.from_numpy(golden["gt_soft_after_click"][index])[:, 0],
            torch.from_numpy(golden["click_raters"][index]),
        )

    target = torch.from_numpy(golden["raters"]).float().mean(dim=1)[:, 0]
    aespa_rounds(run.phases, run.images, target, click, runs=2)
    assert seen == [[-1, -1], golden["click_raters"][0].tolist()]
    run.check()
