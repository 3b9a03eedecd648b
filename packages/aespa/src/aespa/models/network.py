"""The network: SAM's encoders and decoder, and the preference distribution that steers them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from aespa.models.architecture import Architecture
from aespa.models.em import EMMeanVariance, EMWeights, Mixture, responsibilities
from aespa.models.fusion import LATENT
from aespa.models.image_encoder import ImageEncoder
from aespa.models.mask_decoder import MaskDecoder
from aespa.models.prompt_encoder import PromptEncoder, check_prompts

# Image tokens of all samples that are decoded at once when no gradient is wanted.
MOST_TOKENS = {"cpu": 2048, "gpu": 2**19}


class Prompts(NamedTuple):
    """Embedded prompts.

    Attributes:
        sparse: clicks ``[B,T+1,256]``.
        dense: the previous mask ``[B,256,g,g]``.
    """

    sparse: Tensor
    dense: Tensor


class AespaNetwork(nn.Module):
    """Everything that has weights; the keys of its state dictionary are those of the original's checkpoints.

    One round is ``decode(encode(images), latents(mixture(...), n), prompts(...))``; an image needs to be encoded
    only once. B images, T clicks, N samples, K components, S pixels a side, g tokens a side.

    Args:
        architecture: what to build; the weights are PyTorch's, see `aespa.models.build.build_network`.

    Attributes:
        initial_responsibilities: ``[K]``, what the mixture weights start from in the first round
            (`EM_weights.weights` in the original); checkpoints hold it beside the state dictionary.
    """

    initial_responsibilities: Tensor

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        k = architecture.n_components
        self.image_encoder = ImageEncoder(architecture)
        self.prompt_encoder = PromptEncoder(architecture.image_size, architecture.grid)
        self.mask_decoder = MaskDecoder(architecture)
        self.EM_weights = EMWeights(k)
        self.EM_mean_variance = EMMeanVariance(k, architecture.variance)
        self.register_buffer("initial_responsibilities", torch.full((k,), 1 / k), persistent=False)

    def encode(self, images: Tensor) -> Tensor:
        """Return the embedding of images.

        Args:
            images: ``[B,3,S,S]`` in [0, 1].

        Returns:
            ``[B,256,g,g]``.
        """
        side = self.architecture.image_size
        if images.ndim != 4 or images.shape[1:] != (3, side, side):
            raise ValueError(f"images must be [B, 3, {side}, {side}], found {list(images.shape)}")
        return self.image_encoder(images)

    def prompts(
        self, coords: Tensor, labels: Tensor, previous: Tensor | None, boxes: Tensor | None = None
    ) -> Prompts:
        """Embed prompts.

        Args:
            coords: clicks ``[B,T,2]`` as (x, y) pixel indices; T may be 0.
            labels: ``[B,T]``: 1 inside, 0 outside, -1 no click.
            previous: logits of the last mask ``[B,1,4g,4g]``, or ``None``.
            boxes: ``[B,4]`` as (x, y, x, y) of two opposite corners, or ``None``.

        Returns:
            The embeddings.
        """
        check_prompts(coords, labels, previous, self.architecture.low_res)
        if self.architecture.click_order == "yx":
            coords = coords.flip(-1)
            boxes = None if boxes is None else boxes[:, [1, 0, 3, 2]]
        sparse = self.prompt_encoder.sparse(coords, labels, boxes)
        return Prompts(sparse, self.prompt_encoder.dense(previous, len(coords)))

    def mixture(self, sparse: Tensor, responsibilities: Tensor) -> Mixture:
        """Return the preference distribution, in float32.

        Args:
            sparse: embedded clicks ``[B,T+1,256]``.
            responsibilities: ``[B,K]`` of the last mask; `initial_responsibilities` in the first round.

        Returns:
            The mixture of every image; the same for all where the architecture averages over the batch.
        """
        with torch.autocast(sparse.device.type, enabled=False):
            places = self.prompt_encoder.dense_positions()
            means, variances = self.EM_mean_variance(sparse.float(), places)
            weights = self.EM_weights(responsibilities.float())
        if self.architecture.mixture == "image":
            return Mixture(weights, means, variances)
        weights = weights.mean(dim=0, keepdim=True)
        weights = weights / weights.sum()
        return Mixture(
            *(
                each.expand(len(sparse), -1)
                for each in (weights, means.mean(0, keepdim=True), variances.mean(0, keepdim=True))
            )
        )

    def latents(
        self,
        mixture: Mixture,
        n_samples: int,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
        uniform: Tensor | None = None,
    ) -> Tensor:
        """Draw latent vectors.

        Args:
            mixture: the preference distribution.
            n_samples: number N of samples; 1 = the mean, without noise.
            generator: of the noise and of the components; on the mixture's device or on the CPU.
            noise: standard normal ``[N,B,64]`` to use instead of drawing it.
            uniform: numbers in [0, 1) ``[N,B]`` that choose the components, instead of drawing them.

        Returns:
            ``[N,B,64]``, in float32.
        """
        weights, means, deviations = mixture.weights, mixture.means, mixture.variances.sqrt()
        mean = (weights * means).sum(dim=-1)
        if n_samples == 1:
            return mean[None, :, None].expand(1, -1, LATENT)
        shape = (n_samples, len(mean), LATENT)
        if noise is None:
            noise = _draw(torch.randn, shape, generator, mean.device)
        if self.architecture.latent == "shared":
            return mean[None, :, None] + (weights * deviations).sum(dim=-1)[None, :, None] * noise
        component = _draw_components(weights, n_samples, generator, uniform)
        # Straight through: the value of the drawn component, the gradient of the weights.
        chosen = functional.one_hot(component, weights.shape[-1]).to(weights.dtype)
        chosen = chosen + weights - weights.detach()
        centre = (chosen * means).sum(dim=-1)
        return centre[..., None] + (chosen * deviations).sum(dim=-1)[..., None] * noise

    def decode(self, neck: Tensor, z: Tensor | None, prompts: Prompts) -> Tensor:
        """Return the logits of every sample.

        Args:
            neck: embedded images ``[B,256,g,g]`` of `encode`.
            z: latents ``[N,B,64]``; ``None`` leaves preferences out (plain SAM, N = 1).
            prompts: embedded prompts of B images.

        Returns:
            ``[N,B,1,4g,4g]``.
        """
        tokens = neck.flatten(2).transpose(1, 2)
        if z is None:
            return self._decode(tokens[None], prompts)
        # Without gradients a few samples at a time stay in the processor's cache, and memory is bounded.
        most = MOST_TOKENS["cpu" if neck.device.type == "cpu" else "gpu"]
        step = len(z) if torch.is_grad_enabled() else max(1, most // (tokens.shape[0] * tokens.shape[1]))
        parts = [self._decode(self.image_encoder.fcomb(tokens, some), prompts) for some in z.split(step)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _decode(self, image: Tensor, prompts: Prompts) -> Tensor:
        """Return the logits of features ``[N,B,g*g,256]``."""
        places = self.prompt_encoder.dense_positions()
        out, image = self.mask_decoder.transform(image, places, prompts.sparse, prompts.dense)
        return self.mask_decoder.masks(out, image).unflatten(0, (-1, len(prompts.sparse)))

    def upsample(self, logits: Tensor) -> Tensor:
        """Bring logits ``[...,4g,4g]`` to the pixels of the input ``[...,S,S]``."""
        return upsample(logits, self.architecture.image_size, self.architecture.upsample)

    def responsibilities(
        self, probabilities: Tensor, mixture: Mixture, counts: Tensor | None = None
    ) -> Tensor:
        """Return the mean responsibilities of a mask's probabilities.

        With nearest upsampling the mean over low-resolution pixels equals the mean over all pixels.

        Args:
            probabilities: ``[B,n]``.
            mixture: the preference distribution.
            counts: how often each value occurs ``[B,n]``; ``None`` = once.

        Returns:
            ``[B,K]``.
        """
        return responsibilities(probabilities, mixture, self.architecture.responsibility, counts)


def upsample(logits: Tensor, side: int, mode: str) -> Tensor:
    """Resize maps ``[...,h,w]`` to ``[...,side,side]``, ``bilinear`` or ``nearest``."""
    maps = logits.reshape(-1, 1, *logits.shape[-2:])
    corners = False if mode == "bilinear" else None
    resized = functional.interpolate(maps, size=(side, side), mode=mode, align_corners=corners)
    return resized.view(*logits.shape[:-2], side, side)


def _draw(draw, shape: tuple[int, ...], generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Draw numbers on the generator's device, so that a generator of the CPU serves every device."""
    at = device if generator is None else generator.device
    return draw(shape, generator=generator, device=at).to(device)


def _draw_components(
    weights: Tensor, n_samples: int, generator: torch.Generator | None, uniform: Tensor | None
) -> Tensor:
    """Draw components ``[N,B]`` by their weights ``[B,K]``, by inverting the sums of the weights."""
    if uniform is None:
        uniform = _draw(torch.rand, (n_samples, len(weights)), generator, weights.device)
    precise = (
        torch.float32 if weights.device.type == "mps" else torch.float64
    )  # Metal has no double precision
    sums = weights.detach().to(precise).cumsum(dim=-1)
    places = (uniform.to(precise).t() * sums[:, -1:]).contiguous()
    drawn = torch.searchsorted(sums, places, right=True)
    return drawn.clamp_max(weights.shape[-1] - 1).t()
