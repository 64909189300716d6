"""Weights of MMAudio's audio VAE as released, for diffusers' ``MMAudioVAE``."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_EPSILON = 1e-4


def to_diffusers(key: str) -> str:
    """diffusers' name of a native key."""
    return f"vae.{key}"


def baked(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Native weights with the magnitude-preserving norm in them (Karras et al. 2024, equation 47).

    While it trains, the network divides every output channel's weights by their magnitude; a release has it done or
    not. Done, a channel's norm is 1 and nothing changes here.
    """
    return {
        key: _unit(value) if value.ndim == 3 and not key.startswith("data_") else value
        for key, value in weights.items()
    }


def _unit(weight: Tensor) -> Tensor:
    norm = weight.float().flatten(1).norm(dim=1)
    if (norm - 1).abs().max() < 10 * _EPSILON:
        return weight
    fan_in = weight[0].numel()
    magnitude = _EPSILON + norm / fan_in**0.5
    return (weight / magnitude[:, None, None] / fan_in**0.5).to(torch.float32)
