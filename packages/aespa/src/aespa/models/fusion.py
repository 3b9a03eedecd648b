"""Fusion of a latent vector with image features by three 1 x 1 convolutions (`Fcomb` in the original)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

LATENT = 64  # numbers of a latent vector


class Fcomb(nn.Module):
    """Convolutions on image features with a latent vector appended to every pixel, each followed by a ReLU.

    The first convolution is a sum of a part of the features, which all samples share, and of a part of the latent
    vector, which all pixels share; they are computed apart.

    Args:
        channels: channels of the features.
    """

    def __init__(self, channels: int = 256) -> None:
        super().__init__()
        self.channels = channels
        self.layers = nn.Sequential(
            nn.Conv2d(channels + LATENT, channels, 1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1),
            nn.ReLU(),
        )

    def reset_parameters(self) -> None:
        """Draw orthogonal weights and small biases."""
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.orthogonal_(layer.weight)
                if layer.bias is not None:
                    nn.init.trunc_normal_(layer.bias, std=0.001, a=-0.002, b=0.002)

    def forward(self, tokens: Tensor, z: Tensor) -> Tensor:
        """Fuse.

        Args:
            tokens: image features ``[B,n,256]``, channels last.
            z: latent vectors ``[N,B,64]``.

        Returns:
            Fused features ``[N,B,n,256]``, not negative.
        """
        first, second, third = (layer for layer in self.layers if isinstance(layer, nn.Conv2d))
        weight = first.weight.flatten(1)
        shared = functional.linear(tokens, weight[:, : self.channels], first.bias)
        own = functional.linear(z.to(tokens.dtype), weight[:, self.channels :])
        x = (shared + own[:, :, None]).relu_()  # in place: the maps of all samples are large
        x = functional.linear(x, second.weight.flatten(1), second.bias).relu_()
        return functional.linear(x, third.weight.flatten(1), third.bias).relu_()
