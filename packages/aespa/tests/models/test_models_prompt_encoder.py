"""Prompts are embedded as in SAM; the network swaps clicks for the original's weights only."""

from __future__ import annotations

import pytest
import torch

from aespa.models.architecture import Architecture
from aespa.models.build import build_network


@pytest.fixture
def golden(golden_npz):
    return {name: torch.from_numpy(value) for name, value in golden_npz("prompt_encoder").items()}


def _close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@torch.no_grad()
def test_golden_clicks_and_boxes(golden_network, golden):
    encoder = golden_network.prompt_encoder
    points, labels, boxes = golden["points"], golden["labels"], golden["boxes"]
    _close(encoder.sparse(points, labels), golden["sparse_points"])
    _close(encoder.sparse(points[:, :0], labels[:, :0]), golden["sparse_no_points"])
    _close(encoder.sparse(points, torch.full_like(labels, 2)), golden["sparse_label_two"])
    _close(encoder.sparse(points[:, :0], labels[:, :0], boxes), golden["sparse_boxes"])
    _close(encoder.sparse(points, labels, boxes), golden["sparse_points_boxes"])
    _close(encoder.sparse(points.flip(-1), labels), golden["sparse_points_xy_corrected"])
    _close(encoder.dense_positions(), golden["dense_pe"])


@torch.no_grad()
def test_golden_masks(golden_network, golden):
    encoder = golden_network.prompt_encoder
    dense = encoder.dense(golden["mask_logits"], 2)
    _close(dense[:, ::4], golden["dense_mask"])
    torch.testing.assert_close(dense.flatten(1).norm(dim=1), golden["dense_mask_l2"], rtol=1e-5, atol=1e-4)
    none = encoder.dense(None, 3)
    assert none.shape == (3, 256, 8, 8)
    _close(none, golden["dense_none_vector"].view(1, -1, 1, 1).expand(3, -1, 8, 8))


@torch.no_grad()
def test_the_order_of_clicks_is_the_networks_affair(golden_network, golden):
    xy, labels = golden["points"].flip(-1), golden["labels"]  # the golden's points are (row, column)
    assert golden_network.architecture.click_order == "yx"
    _close(golden_network.prompts(xy, labels, None).sparse, golden["sparse_points"])
    tiny = [
        build_network(Architecture(encoder="tiny", image_size=64, click_order=order))
        for order in ("xy", "yx")
    ]
    boxes = golden["boxes"].clamp(max=60)
    straight = tiny[0].prompts(xy / 2, labels, None, boxes)
    swapped = tiny[1].prompts(xy.flip(-1) / 2, labels, None, boxes[:, [1, 0, 3, 2]])
    _close(straight.sparse, swapped.sparse)


@torch.no_grad()
def test_equals_sam(golden_network, golden):
    from segment_anything.modeling.prompt_encoder import PromptEncoder

    ours = golden_network.prompt_encoder
    theirs = PromptEncoder(256, (8, 8), (128, 128), 16)
    theirs.load_state_dict(ours.state_dict())
    sparse, dense = theirs((golden["points"], golden["labels"]), None, golden["mask_logits"])
    _close(ours.sparse(golden["points"], golden["labels"]), sparse)
    _close(ours.dense(golden["mask_logits"], 2), dense)
    _close(ours.dense_positions(), theirs.get_dense_pe())


def test_a_missing_click_has_no_place():
    """An image of a batch without a click this round has the embedding of no point, wherever it would be."""
    network = build_network(Architecture(encoder="tiny", image_size=64))
    labels = torch.tensor([[1], [-1]])
    here = network.prompts(torch.tensor([[[3.0, 4.0]], [[5.0, 6.0]]]), labels, None).sparse
    there = network.prompts(torch.tensor([[[3.0, 4.0]], [[50.0, 60.0]]]), labels, None).sparse
    assert torch.equal(here, there)
    _close(here[1, 0], network.prompt_encoder.not_a_point_embed.weight[0])


@pytest.mark.parametrize(
    ("coords", "labels", "previous", "message"),
    [
        ((2, 3, 2), (2, 2), None, r"coords \[B,T,2\] with labels \[B,T\], found \[2, 3, 2\] and \[2, 2\]"),
        ((2, 3), (2, 3), None, r"found \[2, 3\]"),
        ((2, 1, 2), (2, 1), (2, 1, 64, 64), r"logits must be \[2, 1, 32, 32\], found \[2, 1, 64, 64\]"),
    ],
)
def test_shapes_that_do_not_fit_are_named(coords, labels, previous, message):
    network = build_network(Architecture(encoder="tiny", image_size=64))
    mask = None if previous is None else torch.zeros(previous)
    with pytest.raises(ValueError, match=message):
        network.prompts(torch.zeros(coords), torch.zeros(labels), mask)
