"""What every backbone offers."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Backbone(nn.Module, ABC):
    """Turns a bag of patches into one vector.

    The first layer, a linear map of every patch without randomness, is a step of its own (:meth:`first_layer`): its
    output can be kept and used again while the weights stay the same.
    """

    # Parameters that reach no output; they exist for the original's checkpoints.
    unused: tuple[str, ...] = ()

    @abstractmethod
    def first_layer(self, x: Tensor, known: Tensor | None = None) -> Tensor:
        """Map the patches ``[1, N, c]`` linearly to ``[1, N, h]``; ``known`` is that result where it is at hand."""

    @abstractmethod
    def encode(self, patches: Tensor, extra: Tensor | None = None) -> Tensor:
        """Turn the first layer's output ``[1, N, h]`` into the bag's vector ``[1, h]``.

        What it gets may be rectified in place, and nothing else, so that it can be encoded again.
        """

    @abstractmethod
    def attention(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        """Return the weight of every patch of a bag ``[1, N, c]`` as ``[N]``; they sum to one."""

    def forward(self, x: Tensor, extra: Tensor | None = None, known: Tensor | None = None) -> Tensor:
        """Encode a bag.

        Args:
            x: Features ``[1, N, c]``.
            extra: What the backbone needs beside them: cluster ids ``[N]`` (cluster), edges ``[2, E]`` (graph).
            known: The first layer's output for these features and the present weights, where it is at hand.

        Returns:
            ``[1, h]``.
        """
        return self.encode(self.first_layer(x, known), extra)
