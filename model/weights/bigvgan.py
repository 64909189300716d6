"""Weights of BigVGAN v2 as released, for diffusers' ``MMAudioVocoder``; the names are the same."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_PARTS = {  # weight norm before and after PyTorch's parametrizations
    ".weight_g": ".weight_v",
    ".parametrizations.weight.original0": ".parametrizations.weight.original1",
}


def folded(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Native weights with each weight norm multiplied out; a ``generator`` entry around them is opened.

    Raises:
        ValueError: one half of a weight norm without the other.
    """
    if isinstance(nested := weights.get("generator"), Mapping):
        weights = nested
    whole: dict[str, Tensor] = {}
    for key in weights:
        scale = next((part for part in _PARTS if key.endswith(part)), None)
        if scale is None:
            if not key.endswith(tuple(_PARTS.values())):
                whole[key] = weights[key]
            continue
        name = key.removesuffix(scale)
        if (direction := name + _PARTS[scale]) not in weights:
            raise ValueError(f"{key} has no {direction} beside it")
        whole[f"{name}.weight"] = torch._weight_norm(weights[direction], weights[key], 0)
    return whole
