"""The faithful order of training SPA repeats the original's losses, gradients and changes, step by step."""

from __future__ import annotations

import pytest
import torch

from aespa.clicks import Clicks
from aespa.original.spa_rounds import spa_rounds
from aespa.rounds import LatentDraws


@pytest.mark.slow
def test_golden_order_of_spa(recorded, to_xy):
    run = recorded("trajectory_spa")
    golden = run.golden
    noise = iter(torch.from_numpy(golden["noise"]).flatten(0, 1))
    rounds = iter(range(2))

    def select(samples):
        index = next(rounds)
        assert samples.shape == (2, 6, 1024)
        members = torch.from_numpy(golden["kmeans_labels"][index] == golden["kmeans_target"][index])
        coords = to_xy(golden[f"prompt_coords_{3 * index + 2}"])[:, -1]
        labels = torch.from_numpy(golden[f"prompt_labels_{3 * index + 2}"]).long()[:, -1]
        return samples[:, members].mean(dim=1), Clicks(coords, labels, coords, labels)

    spa_rounds(
        run.phases,
        run.images,
        torch.from_numpy(golden["mask"])[:, 0].float(),
        (to_xy(golden["prompt_coords_0"])[:, 0], torch.from_numpy(golden["prompt_labels_0"]).long()[:, 0]),
        lambda: LatentDraws(next(noise), torch.zeros(6, 2)),
        select,
        n_samples=6,
        runs=2,
    )
    run.check()
