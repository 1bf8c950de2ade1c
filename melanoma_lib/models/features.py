"""Feature maps of any network, whatever the layout of its features."""

import math

import torch
from torch import nn


def feature_map(model: nn.Module, features: torch.Tensor) -> torch.Tensor | None:
    """Features as a map (n, channels, side, side), or None if they have no positions.

    features: a map with channels first or last, or the tokens (n, tokens, channels) of a
    transformer, from which class and register tokens are removed.
    """
    if features.ndim == 4 and features.shape[2] == features.shape[3]:
        return features
    if features.ndim == 4 and features.shape[1] == features.shape[2]:
        return features.permute(0, 3, 1, 2)
    if features.ndim != 3:
        return None
    tokens = features.shape[1]
    prefix = getattr(model, "num_prefix_tokens", 0)
    for patches in (tokens - prefix, tokens - 1):  # some models do not declare their class token
        side = math.isqrt(max(patches, 0))
        if side and side**2 == patches:
            return features[:, -patches:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    return None
