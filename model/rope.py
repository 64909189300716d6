"""Rotary positions of both streams: frame, row and column for video, time alone for audio.

Head channels are interleaved pairs, split among the three axes as in Wan (``wan/modules/model.py``): of 64 pairs, 22
turn with time, 21 with the row and 21 with the column. Audio is at row and column 0, where rotation is the
identity, and at times measured in latent video frames, so that audio and video tokens of the same moment have the
same temporal phase.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Rotation(NamedTuple):
    """Every token's angles, (L, head_dim / 2) each: cosines and sines in float32, and both as complex64."""

    cos: Tensor
    sin: Tensor
    phase: Tensor

    @classmethod
    def of(cls, cos: Tensor, sin: Tensor) -> Rotation:
        return cls(cos, sin, torch.complex(cos, sin))


def axis_pairs(head_dim: int) -> tuple[int, int, int]:
    """Channel pairs of a head that turn with time, row and column."""
    spatial = head_dim // 6
    return head_dim // 2 - 2 * spatial, spatial, spatial


def video_rotation(
    grid: tuple[int, int, int], step: float, head_dim: int, theta: float, device: torch.device
) -> Rotation:
    """Rotation of video tokens in (frame, row, column) order; ``grid`` counts tokens along each axis, and frames are
    ``step`` apart (:attr:`ModelConfig.frame_step`)."""
    shapes = ((-1, 1, 1), (1, -1, 1), (1, 1, -1))
    cos, sin = [], []
    for size, distance, pairs, shape in zip(grid, (step, 1.0, 1.0), axis_pairs(head_dim), shapes):
        angles = _angles(torch.arange(size, device=device, dtype=torch.float64) * distance, pairs, theta)
        cos.append(angles.cos().float().view(*shape, pairs).expand(*grid, pairs))
        sin.append(angles.sin().float().view(*shape, pairs).expand(*grid, pairs))
    return Rotation.of(torch.cat(cos, -1).flatten(0, 2), torch.cat(sin, -1).flatten(0, 2))


def audio_rotation(length: int, step: float, head_dim: int, theta: float, device: torch.device) -> Rotation:
    """Rotation of ``length`` audio tokens, ``step`` positions apart (:attr:`ModelConfig.audio_step`)."""
    time, row, column = axis_pairs(head_dim)
    angles = _angles(torch.arange(length, device=device, dtype=torch.float64) * step, time, theta)
    angles = torch.cat((angles, angles.new_zeros(length, row + column)), -1)
    return Rotation.of(angles.cos().float(), angles.sin().float())


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn ``x`` (B, L, heads, head_dim) by its tokens' angles, in float32; the result has the dtype of ``x``.

    Eager, a product of complex numbers is one pass over memory instead of many; compiled, the written-out form is, and
    complex numbers are not.
    """
    pairs = x.unflatten(-1, (-1, 2))
    if not torch.compiler.is_compiling():
        turned = torch.view_as_complex(pairs.float()) * rotation.phase[:, None]
        return torch.view_as_real(turned).flatten(-2).type_as(x)
    even, odd = pairs.unbind(-1)
    cos, sin = rotation.cos[:, None], rotation.sin[:, None]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2).type_as(x)


def _angles(positions: Tensor, pairs: int, theta: float) -> Tensor:
    frequencies = theta ** (-torch.arange(pairs, device=positions.device, dtype=torch.float64) / pairs)
    return torch.outer(positions, frequencies)
