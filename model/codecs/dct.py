"""Orthonormal cosine bases over small blocks, the lowest frequencies first."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor


def cosine_basis(sizes: Sequence[int], penalties: Sequence[float] | None = None) -> tuple[Tensor, Tensor]:
    """All products of the DCT-II's basis vectors over a block of ``sizes``.

    Args:
        penalties: how much an axis' frequency counts in the order, 1 for all by default.

    Returns:
        float64 basis (n, n), one orthonormal vector a row over the flattened block, and each row's squared frequency
        (n,), by which rows are in ascending order.
    """
    penalties = penalties or [1.0] * len(sizes)
    basis = reduce(torch.kron, [_dct(size) for size in sizes])
    axes = [penalty * (torch.arange(size, dtype=torch.float64) / size) ** 2 for size, penalty in zip(sizes, penalties)]
    frequency = reduce(lambda total, axis: (total[:, None] + axis).flatten(), axes)
    order = torch.argsort(frequency, stable=True)
    return basis[order], frequency[order]


def _dct(size: int) -> Tensor:
    step = torch.arange(size, dtype=torch.float64)
    rows = torch.cos(torch.pi / size * (step + 0.5) * step[:, None]) * (2 / size) ** 0.5
    rows[0] /= 2**0.5
    return rows
