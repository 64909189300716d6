"""Time in the network: sinusoids of the noise level, and shift, scale and gate of the tokens by it.

A sample has at most two noise levels, its own and 0 for what is given, and which of them a token has is a matter of
its latent frame. So what depends on time is computed for the levels, picked for the frames, and broadcast over the
tokens of a frame; the (L, 6, dim) tensor of per-token times that Wan and diffusers make (1.9 GiB a sample at 704p)
never exists.
"""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def timestep_embedding(sigma: Tensor, width: int) -> Tensor:
    """Sinusoids (…, width) float32 of noise levels (…) in [0, 1]: cosines, then sines, of 1000 sigma, in float64."""
    half = width // 2
    exponents = torch.arange(half, device=sigma.device, dtype=torch.float64) / half
    angles = (1000.0 * sigma.double())[..., None] * torch.exp(-math.log(10_000.0) * exponents)
    return torch.cat((angles.cos(), angles.sin()), -1).float()


def linear_float32(layer: nn.Linear, x: Tensor) -> Tensor:
    """``layer`` in float32 whatever its dtype or autocast: bfloat16 cannot tell neighbouring noise levels apart."""
    device = x.device.type
    with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext():
        return F.linear(x.float(), layer.weight.float(), layer.bias.float())


def pick(levels: Tensor, groups: Tensor | None) -> Tensor:
    """What each group of tokens gets: ``levels`` (B, K, …) by ``groups`` (B, G) in [0, K) → (B, G, …); None: as is."""
    if groups is None:
        return levels
    return levels[torch.arange(len(levels), device=levels.device)[:, None], groups]


def normalised(x: Tensor, eps: float) -> Tensor:
    """Layer norm without weights over the last axis, float32."""
    return F.layer_norm(x.float(), x.shape[-1:], eps=eps)


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """``x (1 + scale) + shift``: ``x`` (B, L, D), ``shift`` and ``scale`` (B, G, D), each for L / G tokens in a row."""
    grouped = x.unflatten(1, (shift.shape[1], -1))
    return torch.addcmul(shift.unsqueeze(2), grouped, 1 + scale.unsqueeze(2)).flatten(1, 2)


def gated_sum(x: Tensor, update: Tensor, gate: Tensor) -> Tensor:
    """``x + gate update``, added in float32, in the dtype of ``x``; shapes as in :func:`modulated`."""
    groups = (gate.shape[1], -1)
    total = torch.addcmul(x.float().unflatten(1, groups), update.float().unflatten(1, groups), gate.unsqueeze(2))
    return total.flatten(1, 2).type_as(x)
