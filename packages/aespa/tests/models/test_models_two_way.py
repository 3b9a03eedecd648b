"""The two-way transformer in both kinds of block, against SAM's and against its description."""

from __future__ import annotations

import pytest
import torch

from aespa.models.two_way import Attention, TwoWayTransformer


def _inputs(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 7, 256), (2, 9, 256), (1, 9, 256))
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


def _transformer(block, fill):
    return fill(TwoWayTransformer(block, 32)).double()


@torch.no_grad()
def test_sam_block_equals_sam(fill_golden_weights):
    from segment_anything.modeling import TwoWayTransformer as Theirs

    ours = _transformer("sam", fill_golden_weights)
    theirs = Theirs(depth=2, embedding_dim=256, num_heads=8, mlp_dim=32).double()
    names = ((".mlp.layers.0.0.", ".mlp.lin1."), (".mlp.fc.", ".mlp.lin2."))
    state = ours.state_dict()
    for name, other in names:
        state = {key.replace(name, other): value for key, value in state.items()}
    theirs.load_state_dict(state)
    tokens, image, places = _inputs()
    maps, at = (x.transpose(1, 2).unflatten(-1, (3, 3)) for x in (image, places.expand(2, -1, -1)))
    expected = theirs(maps, at, tokens)
    torch.testing.assert_close(ours(tokens, image, places), expected, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_efficient_block_adds_places_to_the_tokens_and_every_attention_to_its_input(fill_golden_weights):
    ours = _transformer("efficient", fill_golden_weights)
    p, k, at = _inputs()
    q = p
    for index, layer in enumerate(ours.layers):
        q = q + p if index else q
        q = layer.norm1(q + layer.self_attn(q, q, q))
        q = layer.norm2(q + layer.cross_attn_token_to_image(q + p, k + at, k))
        q = layer.norm3(q + layer.mlp.fc(layer.mlp.layers(q)))
        k = layer.norm4(k + layer.cross_attn_image_to_token(k + at, q + p, q))
    q = ours.norm_final_attn(q + ours.final_attn_token_to_image(q + p, k + at, k))
    found = ours(*_inputs())
    torch.testing.assert_close(found, (q, k), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("block", ["sam", "efficient"])
@torch.no_grad()
def test_tokens_are_shared_by_the_samples_of_an_image(block, fill_golden_weights):
    ours = _transformer(block, fill_golden_weights)
    tokens, image, places = _inputs()
    other = image.flip(1) * 2
    found = ours(tokens, torch.cat([image, other]), places)
    for part, maps in zip((slice(0, 2), slice(2, 4)), (image, other), strict=True):
        torch.testing.assert_close(tuple(each[part] for each in found), ours(tokens, maps, places))


@torch.no_grad()
def test_attention_is_a_weighted_mean(fill_golden_weights):
    attention = fill_golden_weights(Attention(128)).double()
    q, k, _ = _inputs()
    heads = [
        project(x).unflatten(-1, (8, 16)).transpose(1, 2)
        for project, x in ((attention.q_proj, q), (attention.k_proj, k), (attention.v_proj, k))
    ]
    weights = (heads[0] @ heads[1].transpose(-2, -1) / 4).softmax(dim=-1)
    expected = attention.out_proj((weights @ heads[2]).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(q, k, k), expected)
