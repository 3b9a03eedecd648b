"""The decoder in both kinds of block, against numbers of the original and against SAM's."""

from __future__ import annotations

import pytest
import torch

from aespa.models.architecture import Architecture
from aespa.models.mask_decoder import MaskDecoder


@pytest.fixture
def golden(golden_npz):
    return {name: torch.from_numpy(value) for name, value in golden_npz("mask_decoder").items()}


def _close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def _decoder(network, block):
    decoder = MaskDecoder(Architecture(image_size=128, block=block))
    decoder.load_state_dict(network.mask_decoder.state_dict())
    return decoder.eval()


def _prompts(network, golden):
    encoder = network.prompt_encoder
    return encoder.dense_positions(), golden["sparse"], encoder.dense(golden["mask_logits"], 2)


@torch.no_grad()
def test_golden_original_block(golden_network, golden):
    decoder, prompts = golden_network.mask_decoder, _prompts(golden_network, golden)
    features = golden["image_embeddings"].flatten(2).transpose(1, 2)
    tokens, keys = decoder.transform(features[None], *prompts)
    _close(tokens, golden["tokens_out"])
    _close(keys[:, ::4], golden["keys_out"])
    masks, quality = decoder(golden["image_embeddings"], *prompts)
    _close(masks, golden["masks_single"])
    _close(quality, golden["iou_single"])
    masks, quality = decoder(golden["image_embeddings"], *prompts, multimask=True)
    _close(masks, golden["masks_multi"])
    _close(quality, golden["iou_multi"])
    masks, _ = decoder(golden["image_embeddings"][:1], *prompts)
    _close(masks, golden["masks_one_image"])


@torch.no_grad()
def test_golden_sam_block(golden_network, golden):
    decoder, prompts = _decoder(golden_network, "sam"), _prompts(golden_network, golden)
    masks, quality = decoder(golden["image_embeddings"], *prompts, multimask=True)
    _close(masks, golden["masks_multi_sam_block"])
    _close(quality, golden["iou_multi_sam_block"])
    _close(decoder(golden["image_embeddings"], *prompts)[0], golden["masks_single_sam_block"])


@torch.no_grad()
def test_sam_block_equals_sam(golden_network, golden):
    from segment_anything.modeling import MaskDecoder as TheirDecoder
    from segment_anything.modeling import TwoWayTransformer

    ours = _decoder(golden_network, "sam")
    theirs = TheirDecoder(
        transformer_dim=256,
        transformer=TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8),
    )
    names = {".mlp.layers.0.0.": ".mlp.lin1.", ".mlp.fc.": ".mlp.lin2."}
    state = {}
    for key, value in ours.state_dict().items():
        for name, other in names.items():
            key = key.replace(name, other) if ".transformer." in f".{key}" else key
        state[key] = value
    theirs.load_state_dict(state)
    places, sparse, dense = _prompts(golden_network, golden)
    for image in range(2):  # SAM's decoder takes one image with its prompts
        one = slice(image, image + 1)
        embedding = golden["image_embeddings"][one]
        expected = theirs(embedding, places, sparse[one], dense[one], multimask_output=True)
        found = ours(embedding, places, sparse[one], dense[one], multimask=True)
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("block", ["sam", "efficient"])
def test_samples_in_one_batch_equal_samples_one_by_one(block, golden_network, golden):
    decoder, prompts = _decoder(golden_network, block), _prompts(golden_network, golden)
    maps = torch.rand(3, 2, 64, 256, generator=torch.Generator().manual_seed(0), requires_grad=True)
    together = decoder.masks(*decoder.transform(maps, *prompts)).unflatten(0, (3, 2))
    alone = torch.stack(
        [decoder(sample.transpose(1, 2).unflatten(-1, (8, 8)), *prompts)[0] for sample in maps]
    )
    _close(together, alone)
    weights = torch.linspace(-1, 1, alone.numel()).view_as(alone)
    both = [torch.autograd.grad((each * weights).sum(), maps)[0] for each in (together, alone)]
    torch.testing.assert_close(both[0], both[1], rtol=1e-4, atol=1e-4)


def test_upscaling_equals_the_convolutions(golden_network):
    decoder = golden_network.mask_decoder
    image = torch.rand(2, 64, 256, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = decoder.output_upscaling(image.transpose(1, 2).unflatten(-1, (8, 8)))
        found = decoder.upscale(image).unflatten(1, (8, 8)).permute(0, 7, 1, 3, 5, 2, 4, 6)
    torch.testing.assert_close(found.reshape(2, 32, 32, 32), expected, rtol=0, atol=1e-5)
