"""Mean, deviation and, where asked for, principal components of latents, measured on a corpus and stored."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from pydantic import model_validator
from torch import Tensor, nn

from kit.config import Strict


class LatentStatistics(Strict):
    """Of a codec's latents before normalisation.

    Attributes:
        mean: one value a channel.
        std: positive, what a normalised channel is divided by: its deviation, unless it was measured with another
            ``whitening``.
        count: latent cells that were measured.
        components: unit vectors over the channels, the one of largest deviation first: normalised channels are the
            projections on them. None: normalised channels are the channels themselves.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    count: int
    components: tuple[tuple[float, ...], ...] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> LatentStatistics:
        if len(self.components or self.mean) != len(self.std) or not all(deviation > 0 for deviation in self.std):
            raise ValueError("statistics need one positive deviation a channel, or a component")
        if any(len(component) != len(self.mean) for component in self.components or ()):
            raise ValueError("components need a value for every channel")
        return self

    @classmethod
    def measure(
        cls, latents: Iterable[Tensor], *, components: int | None = None, whitening: float = 1.0
    ) -> LatentStatistics:
        """Of unnormalised latents (B, C, …); see :class:`Moments`."""
        moments = Moments(components=components, whitening=whitening)
        for latent in latents:
            moments.add(latent)
        return moments.statistics()

    @classmethod
    def load(cls, path: Path) -> LatentStatistics:
        """Raises ValueError naming the file where it holds something else."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"{path}: not latent statistics: {error}") from error

    def save(self, path: Path) -> None:
        path.write_text(self.model_dump_json(indent=1))


class Moments:
    """What :class:`LatentStatistics` need, gathered latent by latent in one pass (Chan et al. 1979).

    Args:
        components: how many of the principal components to normalise by (Pearson 1901); None for the channels.
        whitening: 1 gives every normalised channel the deviation 1; 0 leaves their proportions as they are. In
            between, a channel's deviation is its own to the power of 1 − whitening. Their mean square is 1 always.
    """

    def __init__(self, *, components: int | None = None, whitening: float = 1.0) -> None:
        self._components, self._whitening = components, whitening
        self._count, self._mean, self._squares = 0, 0.0, 0.0

    def add(self, latent: Tensor) -> None:
        """Unnormalised, (B, C, …).

        Raises:
            ValueError: it has another number of channels than the ones before.
        """
        cells = latent.movedim(1, -1).flatten(0, -2).double()
        if self._count and cells.shape[1] != len(self._mean):
            raise ValueError(f"latents of {cells.shape[1]} and of {len(self._mean)} channels do not mix")
        delta = cells.mean(0) - self._mean
        total, within = self._count + len(cells), cells - cells.mean(0)
        share = self._count * len(cells) / total
        if self._components:
            self._squares = self._squares + within.T @ within + torch.outer(delta, delta) * share
        else:
            self._squares = self._squares + within.square().sum(0) + delta.square() * share
        self._mean, self._count = self._mean + delta * len(cells) / total, total

    def statistics(self) -> LatentStatistics:
        """Of what was added.

        Raises:
            ValueError: nothing was, or it does not vary in so many directions.
        """
        if not self._count:
            raise ValueError("no latents to measure")
        mean, covariance = tuple(self._mean.tolist()), self._squares / self._count
        if self._components:
            deviation, axes = _principal(covariance, self._components)
            components = axes.tolist()
        else:  # a channel that never changes carries nothing; it is left as it is
            deviation, components = covariance.sqrt(), None
            deviation = torch.where(deviation > 1e-6, deviation, 1.0)
        std = tuple(_partly(deviation, self._whitening).tolist())
        return LatentStatistics(mean=mean, std=std, count=self._count, components=components)


class Normaliser(nn.Module):
    """(x - mean) / std per channel (axis 1), after projection on the components if there are any, and back; the
    identity without statistics.

    Attributes:
        channels: of normalised latents.
    """

    def __init__(self, channels: int, statistics: LatentStatistics | None) -> None:
        super().__init__()
        if statistics is not None and len(statistics.mean) != channels:
            raise ValueError(f"statistics of {len(statistics.mean)} channels do not fit a codec of {channels}")
        mean, std = (statistics.mean, statistics.std) if statistics else ([0.0] * channels, [1.0] * channels)
        components = statistics.components if statistics else None
        self.channels = len(std)
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("std", torch.tensor(std), persistent=False)
        self.register_buffer("components", None if components is None else torch.tensor(components), persistent=False)
        self.fingerprint = digest(mean, std, *(components or ()))

    def normalise(self, latent: Tensor) -> Tensor:
        latent = latent - _shaped(self.mean, latent)
        if self.components is not None:
            latent = (latent.movedim(1, -1) @ self.components.T).movedim(-1, 1)
        return latent / _shaped(self.std, latent)

    def restore(self, latent: Tensor) -> Tensor:
        latent = latent * _shaped(self.std, latent)
        if self.components is not None:
            latent = (latent.movedim(1, -1) @ self.components).movedim(-1, 1)
        return latent + _shaped(self.mean, latent)


def _shaped(values: Tensor, latent: Tensor) -> Tensor:
    return values.view(-1, *[1] * (latent.ndim - 2))


def _partly(deviation: Tensor, whitening: float) -> Tensor:
    """What to divide channels of these deviations by."""
    left = deviation ** (1 - whitening)
    return deviation / left * left.square().mean().sqrt()


def _principal(covariance: Tensor, components: int) -> tuple[Tensor, Tensor]:
    """Deviations (K,) along the first principal axes, and these (K, C); an axis points to where its largest value is
    positive."""
    variances, axes = torch.linalg.eigh(covariance)
    variances, axes = variances.flip(0)[:components], axes.T.flip(0)[:components]
    if len(variances) < components or not variances[-1] > 1e-12 * variances[0]:
        raise ValueError(f"latents do not vary in components={components} directions: take fewer")
    signs = axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    return variances.sqrt(), axes * signs


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
