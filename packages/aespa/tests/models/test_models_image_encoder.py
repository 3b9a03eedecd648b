"""The image encoder against numbers of the original, and against SAM's at a small size."""

from __future__ import annotations

import pytest
import torch

from aespa.models.architecture import Architecture
from aespa.models.build import build_network, empty_network
from aespa.models.em import Mixture


def _close(ours, theirs, atol=1e-4, rtol=0.0):
    torch.testing.assert_close(ours, torch.from_numpy(theirs).to(ours.dtype), rtol=rtol, atol=atol)


def _mixture(golden, batch):
    return Mixture(
        *(torch.from_numpy(golden[k]).expand(batch, -1) for k in ("weights", "means", "variances"))
    )


def _fused(network, neck, z):
    tokens = network.image_encoder.fcomb(neck.flatten(2).transpose(1, 2), z)
    return tokens.transpose(2, 3).unflatten(-1, neck.shape[-2:])


def test_golden_embedding_latents_and_fusion(golden_network, golden_npz):
    golden = golden_npz("image_encoder")
    blocks = []
    hooks = [
        block.register_forward_hook(lambda module, args, out: blocks.append(out))
        for block in golden_network.image_encoder.blocks
    ]
    with torch.no_grad():
        neck = golden_network.encode(torch.from_numpy(golden["x_uint8"]).float() / 255)
        for hook in hooks:
            hook.remove()
        mixture = _mixture(golden, 2)
        z = golden_network.latents(mixture, 4, noise=torch.from_numpy(golden["noise"]))
        samples = _fused(golden_network, neck, z)
        single = golden_network.latents(mixture, 1)
        fused = _fused(golden_network, neck, single)[0]
    _close(neck, golden["neck"])
    _close(neck[:, ::8].double(), golden["neck_float64"])
    _close(torch.stack([b.mean() for b in blocks]), golden["block_mean"])
    _close(torch.stack([b.std() for b in blocks]), golden["block_std"])
    _close(torch.stack([b[:, 0, 0, :16] for b in blocks]), golden["block_corner"])
    _close(z, golden["z"])
    _close(single, golden["z_single"][None].repeat(64 * 2).reshape(1, 2, 64))
    _close(samples[:, :, ::8], golden["samples"])
    _close(samples.flatten(2).norm(dim=-1), golden["samples_l2"], rtol=1e-5)
    _close(fused[:, ::8], golden["single"])
    _close(fused.flatten(1).norm(dim=-1), golden["single_l2"], rtol=1e-5)


def test_golden_gradients(golden_network, golden_npz):
    golden = golden_npz("image_encoder")
    named = dict(golden_network.named_parameters())
    names = [str(name) for name in golden["grad_names"]]
    x = (torch.from_numpy(golden["x_uint8"]).float() / 255).requires_grad_()
    value = golden_network.encode(x).square().mean()
    gradients = torch.autograd.grad(value, [*(named[name] for name in names[:-2]), x])
    found = [*(float(gradient.norm()) for gradient in gradients), value.item()]
    assert names[-2:] == ["input", "loss"]
    assert found == pytest.approx(golden["grad_values"], rel=1e-3)


def test_golden_larger_image_with_cut_windows(golden_network, golden_tensors, golden_json, golden_npz):
    golden = golden_npz("image_encoder_large")
    network = empty_network(Architecture.original(256))
    tables = golden_tensors(golden_json("state_dict_aespa_256_differences"))
    state = golden_network.state_dict()
    network.load_state_dict({**state, **tables}, assign=True)  # shares all other weights
    with torch.no_grad():
        neck = network.encode(torch.from_numpy(golden["x_uint8"]).float() / 255)
        single = _fused(network, neck, network.latents(_mixture(golden, 1), 1))[0]
    _close(neck[:, ::8], golden["neck"])
    _close(neck.norm(), golden["neck_l2"], atol=1e-2)
    _close(neck.mean(), golden["neck_mean"])
    _close(neck.std(), golden["neck_std"])
    _close(single[:, ::16], golden["single"])
    _close(single.norm(), golden["single_l2"], atol=1e-2)


def test_tiny_encoder_equals_sam(fill_golden_weights):
    from segment_anything.modeling.image_encoder import ImageEncoderViT

    network = fill_golden_weights(build_network(Architecture(encoder="tiny", image_size=64)), 3)
    theirs = ImageEncoderViT(
        img_size=64, patch_size=8, embed_dim=128, depth=2, num_heads=4, use_rel_pos=True, out_chans=256
    )
    ours = network.image_encoder.state_dict()
    theirs.load_state_dict(
        {k.replace(".rel_", ".rel_pos_"): v for k, v in ours.items() if not k.startswith("fcomb.")}
    )
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    # SAM's own layer norm in blocks has PyTorch's epsilon unless told otherwise.
    for module in theirs.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-6
    with torch.no_grad():
        torch.testing.assert_close(network.encode(x), theirs(x), rtol=0, atol=2e-5)


def test_images_of_another_size_are_refused():
    network = build_network(Architecture(encoder="tiny", image_size=64))
    with pytest.raises(ValueError, match=r"images must be \[B, 3, 64, 64\], found \[1, 3, 72, 64\]"):
        network.encode(torch.zeros(1, 3, 72, 64))
