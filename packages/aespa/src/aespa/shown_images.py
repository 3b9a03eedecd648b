"""Pictures of what a network did on some images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from aespa.clustering import kmeans
from aespa.config import Config
from aespa.data.arrays import RaterArrays
from aespa.evaluation import dice_of, masks_of, play
from aespa.figures import Panel, draw_grid
from aespa.following import Pairs, Played
from aespa.models.network import AespaNetwork

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_following(
    network: AespaNetwork, arrays: RaterArrays, config: Config, images: Sequence[int]
) -> Figure:
    """Draw the rounds of every rater of some images: one row a rater, one column a round.

    Args:
        network: In evaluation mode.
        arrays: The images.
        config: Resolved configuration.
        images: Places of the images.
    """
    rows, titles = [], []
    for image in images:
        raters = np.flatnonzero(arrays.valid[image])
        pairs = Pairs(np.full(len(raters), image, np.int64), raters.astype(np.int64))
        played = play(network, arrays, pairs, config)
        masks = masks_of(network, played.logits)
        for place, rater in enumerate(raters):
            truth = arrays.masks[image, rater].astype(bool)
            rows.append(
                [
                    Panel(
                        _picture(arrays, image),
                        f"round {number} · Dice {float(dice_of(mask, truth)):.2f}",
                        mask,
                        truth,
                        _clicks(played, place, number),
                    )
                    for number, mask in enumerate(masks[:, place])
                ]
            )
            titles.append(f"{arrays.names[image].split('/')[-1]}\nrater {arrays.rater_ids[rater]}")
    return draw_grid(rows, titles)


def _picture(arrays: RaterArrays, image: int) -> NDArray[np.uint8]:
    """Return an image ``[S, S, 3]`` at the network's size."""
    return arrays.images[np.array([image])][0].transpose(1, 2, 0)


def _clicks(played: Played, place: int, number: int) -> list[tuple[float, float, int]]:
    """Return the clicks that the answer of a round knew of."""
    coords, labels = played.coords[:number, place].tolist(), played.labels[:number, place].tolist()
    if played.first_clicks is not None:
        coords = [played.first_clicks[0][place].tolist(), *coords]
        labels = [int(played.first_clicks[1][place]), *labels]
    return [(x, y, label) for (x, y), label in zip(coords, labels, strict=True) if label >= 0]


def draw_proposals(
    network: AespaNetwork, arrays: RaterArrays, config: Config, images: Sequence[int]
) -> Figure:
    """Draw the proposals of the first round of some images, with the raters and the entropy of the samples.

    Args:
        network: Of SPA, in evaluation mode.
        arrays: The images.
        config: Resolved configuration.
        images: Places of the images.
    """
    rows, titles = [], []
    for image in images:
        rater = int(np.flatnonzero(arrays.valid[image])[0])
        played = play(network, arrays, Pairs(np.array([image]), np.array([rater])), config)
        assert played.first_samples is not None  # noqa: S101 - SPA keeps them
        low = torch.sigmoid(played.first_samples[:, 0])
        labels = kmeans(low.flatten(1), config.n_clusters).labels[0]
        picture = _picture(arrays, image)
        share = arrays.masks[image][arrays.valid[image]].mean(axis=0)
        probability = torch.sigmoid(network.upsample(played.first_samples[:, 0])).mean(dim=0).cpu().numpy()
        panels = [
            Panel(picture, "image"),
            Panel(picture, "share of raters", heat=share),
            Panel(picture, "mean probability", heat=probability),
            Panel(picture, "entropy", heat=entropy(probability)),
        ]
        order = sorted(labels.unique().tolist(), key=lambda each: -int((labels == each).sum()))
        for cluster in order:
            members = played.first_samples[labels == cluster, 0]
            mask = masks_of(network, members.mean(dim=0)[None])[0]
            panels.append(Panel(picture, f"{len(members)} of {len(labels)} samples", mask))
        rows.append(panels)
        titles.append(arrays.names[image].split("/")[-1])
    return draw_grid(rows, titles)


def entropy(probability: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the entropy in bits of probabilities, 0 where they are 0 or 1.

    Example:
        >>> entropy(np.array([0.0, 0.5, 1.0])).tolist()
        [0.0, 1.0, 0.0]
    """
    p = np.clip(np.asarray(probability, np.float64), 0, 1)
    logs = [np.log2(each, out=np.zeros_like(each), where=each > 0) for each in (p, 1 - p)]
    return np.abs(p * logs[0] + (1 - p) * logs[1])
