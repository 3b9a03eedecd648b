"""The evaluation: every rater as the one whose mask is wanted, Dice by round, the raters as a set, baselines.

It is the same for all methods. A pair is an image and a rater who outlined something on it; a method answers, a
simulated user clicks where the answer is wrong in the eyes of that rater, and so on for all rounds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aespa.config import Config
from aespa.data.arrays import RaterArrays
from aespa.following import Pairs, Played, in_chunks, pairs_of, play_following
from aespa.models.network import AespaNetwork
from aespa.playing_proposals import play_proposing
from aespa.summary import image_table, summarise
from medshared.files import write_json
from medshared.metrics.raters import rater_scores
from medshared.tables import write_table

logger = logging.getLogger(__name__)

CHUNK = 96  # pairs that are played together
Row = dict[str, Any]


@dataclass(frozen=True)
class Tables:
    """What an evaluation measured.

    Attributes:
        pairs: One row an image and rater.
        images: One row an image.
    """

    pairs: list[Row]
    images: list[Row]


def evaluate(
    network: AespaNetwork,
    arrays: RaterArrays,
    config: Config,
    *,
    plain: AespaNetwork | None = None,
    control: bool = True,
    native: bool = True,
    between: Callable[[], None] | None = None,
) -> Tables:
    """Play all pairs of a split and measure.

    Args:
        network: Of any of the three methods, in evaluation mode.
        arrays: The split.
        config: Resolved configuration.
        plain: A plain SAM that is given the same clicks, and also plays its own game.
        control: Also play with random clicks, which must teach nothing.
        native: Also measure at the images' own resolution.
        between: Called before every chunk of pairs; may raise to end the evaluation.
    """
    pairs, images = [], []
    chunks = in_chunks(pairs_of(arrays), chunk_size(config))
    for chunk in chunks:
        if between is not None:
            between()
        with each_alone(network):
            rows, of_images = _measure(network, arrays, chunk, config, plain, control=control, native=native)
        pairs += rows
        images += of_images
    return Tables(pairs, images)


@contextmanager
def each_alone(network: AespaNetwork) -> Iterator[None]:
    """Give every user a mixture of their own, as in a batch of one, where the network averages it over the batch."""
    before = network.architecture
    network.architecture = replace(before, mixture="image")
    try:
        yield
    finally:
        network.architecture = before


def _measure(
    network: AespaNetwork,
    arrays: RaterArrays,
    chunk: Pairs,
    config: Config,
    plain: AespaNetwork | None,
    *,
    control: bool,
    native: bool,
) -> tuple[list[Row], list[Row]]:
    """Return a row for each of some pairs, and one for each of their images."""
    played = play(network, arrays, chunk, config)
    rows = [_facts(arrays, i, r) for i, r in zip(chunk.image, chunk.rater, strict=True)]
    truth = arrays.masks[chunk.image, chunk.rater].astype(bool)
    masks = masks_of(network, played.logits)
    _put_rounds(rows, "dice", dice_of(masks, truth))
    _put_rounds(rows, "iou", iou_of(masks, truth))
    majority = majority_masks(arrays, chunk.image)
    _put(rows, "majority_dice", dice_of(majority, truth))
    _put(rows, "clicks", (played.labels >= 0).sum(dim=0).cpu().numpy())
    if control and config.mode != "SPA":
        guessed = play_following(network, arrays, chunk, config, clicker="random")
        _put_rounds(rows, "random_click_dice", dice_of(masks_of(network, guessed.logits), truth))
    if played.chosen is not None:
        _put_rounds(rows, "proposal_dice", dice_of(masks_of(network, played.chosen), truth))
    if plain is not None:
        same = play_following(plain, arrays, chunk, config, replay=played)
        own = play_following(plain, arrays, chunk, config)
        _put_rounds(rows, "plain_sam_dice", dice_of(masks_of(plain, same.logits), truth))
        _put_rounds(rows, "plain_sam_own_clicks_dice", dice_of(masks_of(plain, own.logits), truth))
    if native:
        _put_rounds(rows, "native_dice", _native_dice(arrays, chunk, played.logits))
    return rows, list(_image_rows(network, arrays, chunk, played, masks))


def chunk_size(config: Config) -> int:
    """Return how many pairs are played together; samples take room as images do."""
    return CHUNK if config.mode != "SPA" else min(CHUNK, max(CHUNK // config.num_samples, 1) * 8)


def play(network: AespaNetwork, arrays: RaterArrays, pairs: Pairs, config: Config) -> Played:
    """Play all rounds as the network's method does."""
    if config.mode == "SPA":
        return play_proposing(network, arrays, pairs, config)
    return play_following(network, arrays, pairs, config)


def masks_of(network: AespaNetwork, logits: Tensor) -> NDArray[np.bool_]:
    """Return masks ``[..., S, S]`` of logits ``[..., 4g, 4g]``."""
    return (network.upsample(logits) > 0).cpu().numpy()


def majority_masks(arrays: RaterArrays, images: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return the neutral masks ``[n, S, S]``: what more than half of the valid raters marked."""
    votes = (arrays.masks[images] * arrays.valid[images][..., None, None]).sum(axis=1)
    return 2 * votes > arrays.valid[images].sum(axis=1)[:, None, None]


def dice_of(masks: NDArray[np.bool_], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the Dice of masks ``[..., S, S]``; 1 where both are empty."""
    both, total = _sizes(masks, truth)
    return np.divide(2.0 * both, total, out=np.ones(both.shape), where=total > 0)


def iou_of(masks: NDArray[np.bool_], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the intersection over union of masks ``[..., S, S]``; 1 where both are empty."""
    both, total = _sizes(masks, truth)
    return np.divide(both, total - both, out=np.ones(both.shape), where=total > 0)


def _sizes(masks: NDArray[np.bool_], truth: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return (masks & truth).sum(axis=(-2, -1)), masks.sum(axis=(-2, -1)) + truth.sum(axis=(-2, -1))


def _facts(arrays: RaterArrays, image: int, rater: int | None) -> Row:
    row: Row = {"image": arrays.names[image], "patient": arrays.patients[image]}
    if arrays.classes[image] is not None:
        row["class"] = arrays.classes[image]
    return row if rater is None else row | {"rater": arrays.rater_ids[rater]}


def _put(rows: list[Row], key: str, values: NDArray[Any]) -> None:
    for row, value in zip(rows, values.tolist(), strict=True):
        row[key] = value


def _put_rounds(rows: list[Row], key: str, values: NDArray[np.float64]) -> None:
    """Write values ``[rounds, P]`` into one column a round."""
    for number, each in enumerate(values):
        _put(rows, f"{key}_r{number}", each)


def _native_dice(arrays: RaterArrays, pairs: Pairs, logits: Tensor) -> NDArray[np.float64]:
    """Return Dice ``[rounds, P]`` at the images' own resolution, from bilinearly resized logits."""
    found = np.empty((len(logits), len(pairs)))
    for image in np.unique(pairs.image):
        where = np.flatnonzero(pairs.image == image)
        truth = arrays.native(int(image)).masks[pairs.rater[where]]
        resized = torch.nn.functional.interpolate(
            logits[:, where].cpu(), size=truth.shape[-2:], mode="bilinear", align_corners=False
        )
        found[:, where] = dice_of((resized > 0).numpy(), truth)
    return found


def _image_rows(
    network: AespaNetwork, arrays: RaterArrays, pairs: Pairs, played: Played, masks: NDArray[np.bool_]
) -> Iterator[Row]:
    """Yield what each image's answers are as a set: in every round, the masks of all followed raters."""
    for image in np.unique(pairs.image):
        where = np.flatnonzero(pairs.image == image)
        raters, valid = arrays.masks[image].astype(bool)[None], arrays.valid[image][None]
        row = _facts(arrays, int(image), None) | {"n_raters": int(valid.sum())}
        for number, logits in enumerate(played.logits[:, where]):
            # The answer of one user, who follows the first rater, where a measure takes a single mask.
            single = torch.sigmoid(network.upsample(logits[:1]).float()).cpu().numpy()
            row |= {
                f"{key}_r{number}": value
                for key, value in _set_scores(masks[number, where][None], single, raters, valid).items()
            }
            follow = dice_of(masks[number, where], raters[0, pairs.rater[where]])
            neutral = dice_of(masks[number, where], majority_masks(arrays, np.array([image])))
            row[f"dice_follow_r{number}"] = float(follow.mean())
            row[f"dice_neutral_r{number}"] = float(neutral.mean())
            row[f"follow_less_neutral_r{number}"] = float(follow.mean() - neutral.mean())
        yield row | _sample_scores(network, played, where[0], raters, valid)


def _set_scores(
    masks: NDArray[np.bool_], single: NDArray[np.float32], raters: NDArray[np.bool_], valid: NDArray[np.bool_]
) -> dict[str, float]:
    """Return the measures of a set of masks against the set of raters, in all their conventions."""
    dice = rater_scores(masks, raters, valid, single=single, symmetric=False)
    symmetric = rater_scores(masks, raters, valid, single=single, distance="iou", symmetric=True)
    thresholds = rater_scores(single[None], raters, valid, soft="five_thresholds")
    return {
        "ged": float(symmetric.ged[0]),
        "ged_dice": float(dice.ged[0]),
        "dice_max": float(dice.dice_max[0]),
        "dice_max_symmetric": float(symmetric.dice_max[0]),
        "dice_match": float(dice.dice_match[0]),
        "dice_soft": float(dice.dice_soft[0]),
        "dice_soft_five_thresholds": float(thresholds.dice_soft[0]),
        "dice_personal": float(dice.dice_personal_mean[0]),
    }


def _sample_scores(
    network: AespaNetwork, played: Played, place: int, raters: NDArray[np.bool_], valid: NDArray[np.bool_]
) -> dict[str, float]:
    """Return the energy distance of the samples of the first round, and of their mean mask repeated."""
    if played.first_samples is None:
        return {}
    samples = masks_of(network, played.first_samples[:, place])[None]
    mean = masks_of(network, played.logits[0, place])[None, None]
    of_samples = rater_scores(samples, raters, valid, distance="iou").ged[0]
    of_mean = rater_scores(mean, raters, valid, distance="iou").ged[0]
    return {"ged_samples": float(of_samples), "ged_mean_mask": float(of_mean)}


def write_tables(folder: Path, tables: Tables, config: Config) -> dict[str, dict[str, Any]]:
    """Write ``predictions.csv`` (pairs), ``images.csv`` and ``summary.json``, and return the summary.

    Args:
        folder: Of the run.
        tables: Of `evaluate`.
        config: Resolved configuration.
    """
    table = image_table(tables.pairs, tables.images, first=int(config.mode == "SPA"))
    summary = summarise(table, config.seed)
    write_table(folder / "predictions.csv", tables.pairs)
    write_table(folder / "images.csv", table)
    write_json(folder / "summary.json", summary)
    return summary
