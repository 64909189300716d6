"""Mean and deviation of every latent channel, measured on a corpus and stored."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, model_validator
from torch import Tensor, nn


class LatentStatistics(BaseModel):
    """Per-channel mean and standard deviation of latents before normalisation.

    Attributes:
        mean, std: one value a channel; deviations are positive.
        count: latent cells that were measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: tuple[float, ...]
    std: tuple[float, ...]
    count: int

    @model_validator(mode="after")
    def _consistent(self) -> LatentStatistics:
        if len(self.mean) != len(self.std) or not all(deviation > 0 for deviation in self.std):
            raise ValueError("statistics need one mean and one positive deviation a channel")
        return self

    @classmethod
    def measure(cls, latents: Iterable[Tensor]) -> LatentStatistics:
        """Of unnormalised latents (B, C, …), in one pass (Chan et al. 1979).

        Raises:
            ValueError: there are none, or they do not have one number of channels.
        """
        count, mean, squares = 0, 0.0, 0.0
        for latent in latents:
            cells = latent.movedim(1, -1).flatten(0, -2).double()
            if count and cells.shape[1] != len(mean):
                raise ValueError(f"latents of {cells.shape[1]} and of {len(mean)} channels do not mix")
            delta = cells.mean(0) - mean
            total = count + len(cells)
            squares = squares + (cells - cells.mean(0)).square().sum(0) + delta.square() * count * len(cells) / total
            mean, count = mean + delta * len(cells) / total, total
        if not count:
            raise ValueError("no latents to measure")
        # A channel that never changes carries nothing; it is left as it is.
        deviation = (squares / count).sqrt()
        deviation = torch.where(deviation > 1e-6, deviation, 1.0)
        return cls(mean=tuple(mean.tolist()), std=tuple(deviation.tolist()), count=count)

    @classmethod
    def load(cls, path: Path) -> LatentStatistics:
        """Raises ValueError naming the file where it holds something else."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"{path}: not latent statistics: {error}") from error

    def save(self, path: Path) -> None:
        path.write_text(self.model_dump_json(indent=1))


class Normaliser(nn.Module):
    """(x - mean) / std per channel (axis 1) and back; the identity without statistics."""

    def __init__(self, channels: int, statistics: LatentStatistics | None) -> None:
        super().__init__()
        if statistics is not None and len(statistics.mean) != channels:
            raise ValueError(f"statistics of {len(statistics.mean)} channels do not fit a codec of {channels}")
        mean, std = (statistics.mean, statistics.std) if statistics else ([0.0] * channels, [1.0] * channels)
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("std", torch.tensor(std), persistent=False)
        self.fingerprint = digest(mean, std)

    def normalise(self, latent: Tensor) -> Tensor:
        mean, std = self._shaped(latent)
        return (latent - mean) / std

    def restore(self, latent: Tensor) -> Tensor:
        mean, std = self._shaped(latent)
        return latent * std + mean

    def _shaped(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        shape = (-1, *[1] * (latent.ndim - 2))
        return self.mean.view(shape), self.std.view(shape)


def weights_digest(state: Mapping[str, Tensor], samples: int = 64) -> str:
    """Hash of a network's names, shapes and some values of every tensor, 16 hexadecimal digits.

    Some, so that twenty gigabytes need not be read to know which weights they are: training moves them all.
    """
    seen = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().flatten()
        seen.update(f"{name} {tuple(state[name].shape)} ".encode())
        seen.update(value[:: max(1, len(value) // samples)].float().cpu().numpy().tobytes())
    return seen.hexdigest()[:16]


def digest(*parts: object) -> str:
    """Hash of what decides a codec's latents, 16 hexadecimal digits."""
    return hashlib.sha256("\x1f".join(map(repr, parts)).encode()).hexdigest()[:16]
