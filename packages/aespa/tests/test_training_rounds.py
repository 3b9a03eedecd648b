"""The losses of a batch, round by round."""

from __future__ import annotations

import pytest
import torch

from aespa.clicks import Clicks
from aespa.config import Config
from aespa.draws import ItemDraws
from aespa.models.architecture import Architecture
from aespa.models.build import build_network
from aespa.proposing_losses import proposal_losses
from aespa.synthetic_drawing import draw_arrays
from aespa.training_rounds import follow_losses, mean_of_valid, plain_losses, still_agreeing

METHODS = {"AESPA": follow_losses, "SPA": proposal_losses, "SAM": plain_losses}


def config_of(mode: str, **keys) -> Config:
    given = {
        "encoder": "tiny",
        "image_size": 32,
        "runs": 3,
        "num_samples": 4,
        "n_clusters": 2,
        "n_components": 4,
    }
    return Config(mode=mode, **{**given, **keys}).resolved()


@pytest.fixture(scope="module")
def arrays():
    return draw_arrays(4, 32, 0)


def losses_of(config: Config, arrays, seeds, indices=None):
    network = build_network(Architecture.from_config(config))
    batch = arrays.batch(range(len(arrays)) if indices is None else indices)
    found = METHODS[config.mode](
        network, lambda: network.encode(batch.images), batch.raters, batch.valid, ItemDraws(seeds), config
    )
    return network, list(found)


def totals(losses) -> list[float]:
    return [x.total.item() for x in losses]


@pytest.mark.parametrize("mode", METHODS)
def test_a_loss_a_round_that_is_the_same_for_the_same_seeds(mode, arrays):
    config = config_of(mode)
    _, first = losses_of(config, arrays, range(4))
    _, again = losses_of(config, arrays, range(4))
    _, other = losses_of(config, arrays, range(10, 14))
    assert len(first) == 3
    assert totals(first) == totals(again)
    assert totals(first) != totals(other)
    assert all(torch.isfinite(x.total) for x in first)


@pytest.mark.parametrize(
    ("mode", "learning"),
    [
        (
            "AESPA",
            [
                "image_encoder.neck",
                "image_encoder.fcomb",
                "prompt_encoder.mask_downscaling",
                "EM_mean",
                "EM_wei",
            ],
        ),
        (
            "SPA",
            [
                "image_encoder.neck",
                "image_encoder.fcomb",
                "prompt_encoder.point_embeddings.1",
                "EM_mean",
                "EM_wei",
            ],
        ),
        ("SAM", ["image_encoder.neck", "mask_decoder.transformer", "prompt_encoder.mask_downscaling"]),
    ],
)
def test_everything_that_is_used_learns(mode, learning, arrays):
    """The original never trains the mixture's means in AESPA, nor the mask prompt."""
    network, losses = losses_of(config_of(mode), arrays, range(4))
    sum(x.total for x in losses).backward()
    changed = {
        name for name, p in network.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0
    }
    for part in learning:
        assert any(name.startswith(part) for name in changed), part
    if mode == "SAM":
        assert not any(name.startswith(("EM_", "image_encoder.fcomb")) for name in changed)


def test_images_of_a_batch_do_not_change_each_others_losses(arrays):
    """The mean over a batch is the mean over its images alone: two devices compute what one does."""
    config = config_of("AESPA")
    _, together = losses_of(config, arrays, range(4))
    alone = [losses_of(config, arrays, [i], [i])[1] for i in range(4)]
    for number, loss in enumerate(together):
        assert loss.mask.item() == pytest.approx(sum(x[number].mask.item() for x in alone) / 4, abs=1e-4)


def test_the_first_target_is_the_mean_of_valid_raters():
    raters = torch.zeros(1, 3, 4, 4)
    raters[0, 0, :2], raters[0, 1, :3] = 1, 1
    mean = mean_of_valid(raters, torch.tensor([[True, True, False]]))
    assert mean[0, :, 0].tolist() == [1, 1, 0.5, 0]
    assert mean_of_valid(raters, torch.zeros(1, 3, dtype=torch.bool)).sum() == 0


def test_empty_raters_count_where_the_original_counted_them(arrays):
    batch = arrays.batch([0])
    valid = torch.tensor([[True, True, False]])
    raters = batch.raters * valid[..., None, None]

    def first_loss(valid_only: bool) -> float:
        config = config_of("AESPA", valid_only=valid_only, runs=1)
        network = build_network(Architecture.from_config(config))
        losses = follow_losses(
            network, lambda: network.encode(batch.images), raters, valid, ItemDraws([0]), config
        )
        return next(losses).mask.item()

    assert first_loss(True) != first_loss(False)


def clicks_at(x: int, y: int, label: int, rater: int) -> Clicks:
    return Clicks(
        torch.tensor([[float(x), float(y)]]),
        torch.tensor([label]),
        torch.zeros(1, 4, 4),
        torch.tensor([rater]),
    )


def test_agreement_is_with_all_clicks_until_the_user_changes_whom_to_follow():
    raters = torch.zeros(1, 3, 4, 4)
    raters[0, 0, 0], raters[0, 1, :2], raters[0, 2, :3] = 1, 1, 1  # rows 0, 0–1, 0–2
    valid = torch.ones(1, 3, dtype=torch.bool)
    agreeing = still_agreeing(valid, raters, valid, clicks_at(0, 1, 1, 1), torch.tensor([-1]))
    assert agreeing.tolist() == [[False, True, True]]
    # A click that everybody agrees with forgets nothing.
    agreeing = still_agreeing(agreeing, raters, valid, clicks_at(0, 0, 1, 1), torch.tensor([1]))
    assert agreeing.tolist() == [[False, True, True]]
    agreeing = still_agreeing(agreeing, raters, valid, clicks_at(0, 2, 0, 1), torch.tensor([1]))
    assert agreeing.tolist() == [[False, True, False]]
    # Without a click nothing changes; another rater begins anew.
    assert still_agreeing(agreeing, raters, valid, clicks_at(0, 0, -1, 1), torch.tensor([1])).equal(agreeing)
    other = still_agreeing(agreeing, raters, valid, clicks_at(0, 1, 0, 0), torch.tensor([1]))
    assert other.tolist() == [[True, False, False]]


def test_the_targets_of_all_and_last_differ(arrays):
    found = {}
    for agreement in ("all", "last"):
        _, losses = losses_of(config_of("AESPA", agreement=agreement, runs=5), arrays, range(4))
        found[agreement] = [x.mask.item() for x in losses]
    assert found["all"][:2] == found["last"][:2]  # one click cannot differ
    assert found["all"] != found["last"]


def test_proposal_weight_zero_is_the_mean_alone(arrays):
    _, with_proposal = losses_of(config_of("SPA"), arrays, range(4))
    _, without = losses_of(config_of("SPA", proposal_weight=0.0), arrays, range(4))
    assert with_proposal[0].mask.item() > without[0].mask.item() > 0
