"""What a codec is: media to normalised latents and back, and the shape of a latent before it exists."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class VideoCodec(Protocol):
    """Frames to latents. The first frame is coded by itself, so a clip has ``1 + k * stride[0]`` frames.

    Attributes:
        channels: of a latent.
        stride: frames, rows and columns of a latent's cell.
        fingerprint: hash of all that decides the latents (weights, settings, statistics); latents of another
            fingerprint do not mix.
    """

    channels: int
    stride: tuple[int, int, int]
    fingerprint: str

    def encode(self, video: Tensor) -> Tensor:
        """(B, 3, T, H, W) RGB in [-1, 1] → (B, channels, F, h, w), normalised per channel."""

    def decode(self, latent: Tensor) -> Tensor:
        """(B, channels, F, h, w) → (B, 3, T, H, W) in [-1, 1]."""

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """(channels, F, h, w) of such a video. Raises ValueError where a size does not fit the stride."""


class AudioCodec(Protocol):
    """Mono audio to latents; a waveform is padded to whole latents with silence.

    Attributes:
        rate: Hz of waveforms.
        channels: of a latent.
        latent_rate: latents a second.
        fingerprint: as of :class:`VideoCodec`.
    """

    rate: int
    channels: int
    latent_rate: float
    fingerprint: str

    def encode(self, audio: Tensor) -> Tensor:
        """(B, S) in [-1, 1] → (B, channels, L), normalised per channel."""

    def decode(self, latent: Tensor) -> Tensor:
        """(B, channels, L) → (B, S) with S a whole number of latents."""

    def latent_shape(self, samples: int) -> tuple[int, int]:
        """(channels, L) of a waveform."""
