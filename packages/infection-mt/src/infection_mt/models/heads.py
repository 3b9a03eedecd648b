"""The small head that classifiers and regressors of this package share."""

from __future__ import annotations

from torch import nn


def build_head(in_features: int, out_features: int, *, hidden_dim: int, dropout: float) -> nn.Sequential:
    """Build ``[Dropout] → Linear → ReLU → [Dropout] → Linear``, or ``[Dropout] → Linear`` without a hidden layer.

    The position of each layer in the ``Sequential`` is part of the checkpoint format: without dropout the first
    dropout is left out and the second becomes an identity, so that keys are ``.1/.4`` with and ``.0/.3`` without.

    Args:
        in_features: Length of the feature vector.
        out_features: Number of outputs.
        hidden_dim: Width of the hidden layer; 0 for a single linear layer.
        dropout: Probability in [0, 1); 0 for none.
    """
    layers: list[nn.Module] = []
    if dropout > 0:
        layers.append(nn.Dropout(dropout))
    if hidden_dim > 0:
        layers += [nn.Linear(in_features, hidden_dim), nn.ReLU(inplace=True)]
        layers.append(nn.Dropout(dropout) if dropout > 0 else nn.Identity())
        layers.append(nn.Linear(hidden_dim, out_features))
    else:
        layers.append(nn.Linear(in_features, out_features))
    return nn.Sequential(*layers)
