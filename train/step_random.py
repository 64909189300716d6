"""Randomness of a step, keyed by (seed, step, sample): no state, and the same on any number of ranks.

A draw depends on its key alone: not on the batch that the sample is in, not on the rank that computes it, not on
what was drawn before. So a run that is resumed, on one GPU or on a thousand, sees the noise it would have seen.
Normals come from PyTorch's generator of the device (Philox on CUDA, whose values depend on the type of GPU).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from model.schedule import shift_sigma
from train.config import DropConfig, NoiseConfig
from unitalking_data.permutation import hash64


class StepRandom:
    """The random numbers of one step for the samples named.

    Args:
        names: of the samples, unique within a step: key and epoch.
    """

    def __init__(self, seed: int, step: int, names: Sequence[str], device: torch.device | str = "cpu") -> None:
        self._keys = [(seed, step, name) for name in names]
        self._device = torch.device(device)

    def normal(self, what: str, shape: Sequence[int]) -> Tensor:
        """Standard normal float32 ``(samples, *shape)``; the same sample has other noise for another ``what``."""
        noise = torch.empty(len(self._keys), *shape, device=self._device)
        generator = torch.Generator(self._device)
        for row, key in zip(noise, self._keys):
            row.normal_(generator=generator.manual_seed(hash64(what, *key) >> 1))
        return noise

    def uniform(self, what: str) -> Tensor:
        """Float64 ``(samples,)`` in [0, 1), on the CPU."""
        return torch.tensor([hash64(what, *key) / 2**64 for key in self._keys], dtype=torch.float64)

    def sigma(self, what: str, config: NoiseConfig) -> Tensor:
        """Noise levels, float32 ``(samples,)`` in [0, 1], on the CPU."""
        u = self.uniform(what)
        if config.level == "logit_normal":
            u = torch.special.ndtri(u.clamp(1e-6, 1 - 1e-6)).sigmoid()
        return shift_sigma(u, config.shift).float()

    def dropped(self, config: DropConfig) -> tuple[Tensor, Tensor]:
        """Which samples lose their text and which their reference voice, bool ``(samples,)`` each, on the CPU."""
        u = self.uniform("drop")
        bounds = torch.tensor([config.text, config.text + config.both, config.text + config.both + config.reference])
        fate = torch.bucketize(u, bounds.double(), right=True)  # 0 text, 1 both, 2 reference, 3 nothing
        return fate <= 1, (fate == 1) | (fate == 2)
