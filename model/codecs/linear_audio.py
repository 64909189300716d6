"""An audio codec without weights: cosines over a log-mel spectrogram, and Griffin-Lim back to a waveform."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from media.mel import mel_filters
from model.codecs.dct import cosine_basis
from model.codecs.statistics import LatentStatistics, Normaliser, digest

_MOMENTUM = 0.99
_UNMIX_ROUNDS = 30


class LinearAudioCodec(nn.Module):
    """``group`` neighbouring log-mel frames to their lowest ``channels`` cosine coefficients.

    The way to the mel and back is linear and loses nothing when all channels are kept; magnitudes are then spread over
    the FFT's bins by non-negative least squares, and phases found by the fast Griffin-Lim algorithm (Perraudin et al.
    2013) from a fixed start, so decoding is deterministic. For the ``tiny`` recipe; see
    :class:`model.codecs.base.AudioCodec`.

    Args:
        rate: Hz.
        n_fft, hop: samples of a frame and between frames; frame *k* is centred on samples ``[k hop, (k + 1) hop)``.
        mels: bands between ``low_hz`` and ``high_hz`` (None: half the rate).
        group: frames of a latent.
        channels: coefficients kept of ``mels · group``; None keeps all.
        floor: amplitude, of a full-scale sine's 1, that is added before the logarithm.
        iterations: of Griffin-Lim.
        statistics: measured mean and deviation of the coefficients, or of their principal components, which are the
            latent's channels then; None leaves the coefficients as they are.
    """

    def __init__(
        self,
        *,
        rate: int = 44_100,
        n_fft: int = 2048,
        hop: int = 512,
        mels: int = 80,
        low_hz: float = 40.0,
        high_hz: float | None = None,
        group: int = 2,
        channels: int | None = None,
        floor: float = 1e-3,
        iterations: int = 32,
        statistics: LatentStatistics | None = None,
    ) -> None:
        super().__init__()
        whole = mels * group
        if channels is not None and not 1 <= channels <= whole:
            raise ValueError(f"channels={channels}: {group} frames of {mels} bands have 1 to {whole}")
        if n_fft < 2 * hop or (n_fft - hop) % 2:
            raise ValueError(f"n_fft={n_fft} must be at least twice hop={hop} and differ from it by an even number")
        kept = channels or whole
        self.rate, self.latent_rate = rate, rate / (hop * group)
        self.n_fft, self.hop, self.mels, self.group, self.floor = n_fft, hop, mels, group, floor
        self.iterations = iterations
        filters = torch.from_numpy(mel_filters(rate, n_fft, mels, low_hz, high_hz, equal_area=False).copy())
        if (filters.sum(1) == 0).any():
            raise ValueError(f"mels={mels} from {low_hz:g} Hz are narrower than the bins of n_fft={n_fft}: take fewer")
        basis, _ = cosine_basis((mels, group))
        for name, value in (
            ("filters", filters),
            ("basis", basis[:kept]),
            ("window", torch.hann_window(n_fft, dtype=torch.float64)),
        ):
            self.register_buffer(name, value.float(), persistent=False)
        self.normaliser = Normaliser(kept, statistics)
        self.channels = self.normaliser.channels
        settings = (rate, n_fft, hop, mels, low_hz, high_hz, group, kept, floor)
        self.fingerprint = digest("linear-audio-1", *settings, self.normaliser.fingerprint)

    def latent_shape(self, samples: int) -> tuple[int, int]:
        if samples < 1:
            raise ValueError("a waveform without samples has no latents")
        return self.channels, math.ceil(samples / (self.hop * self.group))

    def encode(self, audio: Tensor) -> Tensor:
        """See :meth:`model.codecs.base.AudioCodec.encode`."""
        _, length = self.latent_shape(audio.shape[1])
        audio = F.pad(audio, (0, length * self.group * self.hop - audio.shape[1]))
        magnitude = self._spectrum(audio).abs() * (2 / self.window.sum())
        log_mel = torch.log(self.filters @ magnitude + self.floor)  # (B, mels, frames)
        blocks = log_mel.unflatten(2, (length, self.group)).transpose(1, 2).flatten(2)
        return self.normaliser.normalise((blocks @ self.basis.T).transpose(1, 2))

    def mel(self, latent: Tensor) -> Tensor:
        """Log-mel (B, mels, frames) that a latent stands for."""
        blocks = self.normaliser.restore(latent).transpose(1, 2) @ self.basis
        return blocks.unflatten(2, (self.mels, self.group)).transpose(1, 2).flatten(2)

    def decode(self, latent: Tensor) -> Tensor:
        """See :meth:`model.codecs.base.AudioCodec.decode`."""
        bands = (self.mel(latent).exp() - self.floor).clamp_min(0)
        return self._griffin_lim(self._unmix(bands) / (2 / self.window.sum())).clamp(-1, 1)

    def _spectrum(self, audio: Tensor) -> Tensor:
        side = (self.n_fft - self.hop) // 2
        padded = F.pad(audio[:, None], (side, side), mode="reflect" if audio.shape[1] > side else "constant")[:, 0]
        return torch.stft(padded, self.n_fft, self.hop, window=self.window, center=False, return_complex=True)

    def _waveform(self, spectrum: Tensor) -> Tensor:
        """Least-squares inverse of :meth:`_spectrum`: windowed frames added up, over the sum of squared windows."""
        side, frames = (self.n_fft - self.hop) // 2, spectrum.shape[2]
        pieces = torch.fft.irfft(spectrum, self.n_fft, dim=1) * self.window[:, None]
        weights = self.window.square()[None, :, None].expand(1, -1, frames)
        size = (1, (frames - 1) * self.hop + self.n_fft)
        total, weight = (
            F.fold(x, size, (1, self.n_fft), stride=(1, self.hop))[:, 0, 0] for x in (pieces, weights.contiguous())
        )
        return (total / weight.clamp_min(1e-8))[:, side : side + frames * self.hop]

    def _unmix(self, bands: Tensor) -> Tensor:
        """Non-negative magnitudes whose bands are ``bands``, by multiplicative updates (Lee and Seung 2001)."""
        magnitude = (self.filters.T @ bands) / self.filters.sum(0).clamp_min(1e-3)[:, None]
        target = self.filters.T @ bands
        for _ in range(_UNMIX_ROUNDS):
            magnitude = magnitude * target / (self.filters.T @ (self.filters @ magnitude)).clamp_min(1e-12)
        return magnitude

    def _griffin_lim(self, magnitude: Tensor) -> Tensor:
        noise = torch.rand(magnitude.shape[1:], generator=torch.Generator().manual_seed(0)).to(magnitude)
        spectrum = torch.polar(magnitude, 2 * torch.pi * noise.expand_as(magnitude))
        before = torch.zeros_like(spectrum)
        for _ in range(self.iterations):
            now = self._spectrum(self._waveform(spectrum))
            ahead = now + _MOMENTUM / (1 + _MOMENTUM) * (now - before)
            spectrum, before = torch.polar(magnitude, ahead.angle()), now
        return self._waveform(spectrum)
