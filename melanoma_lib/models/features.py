"""Features of a network as maps, whatever the network's layout."""

import math

import torch
from torch import nn


def as_map(model: nn.Module, features: torch.Tensor) -> torch.Tensor | None:
    """Features as (n, channels, side, side), or None where they are no map.

    Takes maps with channels first or last, and tokens (n, tokens, channels) in rows, without
    the class token and its like, which belong to no place.
    """
    if features.ndim == 4 and features.shape[2] == features.shape[3]:
        return features
    if features.ndim == 4 and features.shape[1] == features.shape[2]:
        return features.permute(0, 3, 1, 2)
    if features.ndim != 3:
        return None
    tokens = features.shape[1]
    prefix = getattr(model, "num_prefix_tokens", 0)
    for patches in (tokens - prefix, tokens - 1):  # some models do not tell of their class token
        side = math.isqrt(max(patches, 0))
        if side and side**2 == patches:
            return features[:, -patches:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    return None
