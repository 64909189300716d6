"""Mel filterbanks, log-mel spectra and the MFCC that SyncNet and Light-ASD were trained on."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
from scipy.fft import dct

MelScale = Literal["slaney", "htk"]

_SLANEY_BREAK_HZ, _SLANEY_BREAK_MEL = 1000.0, 15.0
_SLANEY_STEP = np.log(6.4) / 27


def hz_to_mel(hz: np.ndarray | float, scale: MelScale) -> np.ndarray:
    """HTK: ``2595 log10(1 + f / 700)``. Slaney (Auditory Toolbox): linear to 1 kHz, logarithmic above."""
    hz = np.asarray(hz, np.float64)
    if scale == "htk":
        return 2595 * np.log10(1 + hz / 700)
    above = _SLANEY_BREAK_MEL + np.log(np.maximum(hz, 1e-9) / _SLANEY_BREAK_HZ) / _SLANEY_STEP
    return np.where(hz < _SLANEY_BREAK_HZ, hz * 3 / 200, above)


def mel_to_hz(mel: np.ndarray | float, scale: MelScale) -> np.ndarray:
    mel = np.asarray(mel, np.float64)
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    above = _SLANEY_BREAK_HZ * np.exp(_SLANEY_STEP * (mel - _SLANEY_BREAK_MEL))
    return np.where(mel < _SLANEY_BREAK_MEL, mel * 200 / 3, above)


@lru_cache(maxsize=32)
def mel_filters(
    rate: int,
    n_fft: int,
    n_mels: int,
    low_hz: float = 0.0,
    high_hz: float | None = None,
    scale: MelScale = "slaney",
    equal_area: bool = True,
) -> np.ndarray:
    """Triangular filters, float64 ``[n_mels, n_fft // 2 + 1]``, read-only.

    With ``equal_area`` each has unit area over Hz (Slaney's, and librosa's default), else unit peak. The triangles
    are sampled at the FFT's bins, as in librosa.
    """
    edges = mel_to_hz(np.linspace(*hz_to_mel([low_hz, high_hz or rate / 2], scale), n_mels + 2), scale)
    bins = np.fft.rfftfreq(n_fft, 1 / rate)
    low, peak, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    filters = np.clip(np.minimum((bins - low) / (peak - low), (high - bins) / (high - peak)), 0, None)
    if equal_area:
        filters *= 2 / (high - low)
    filters.flags.writeable = False
    return filters


def log_mel(
    signal: np.ndarray,
    rate: int,
    *,
    n_fft: int,
    hop: int,
    n_mels: int,
    window: int | None = None,
    low_hz: float = 0.0,
    high_hz: float | None = None,
    scale: MelScale = "slaney",
    equal_area: bool = True,
    power: float = 2.0,
    floor: float = 1e-10,
) -> np.ndarray:
    """Natural logarithm of mel energies, float32 ``[1 + (n - window) // hop, n_mels]``.

    Frame *t* begins at sample ``t * hop``; nothing is padded. A periodic Hann window of ``window`` samples
    (``n_fft`` by default) is applied, magnitudes are raised to ``power``, energies below ``floor`` are set to it.

    Args:
        signal: ``[n]`` at ``rate`` Hz.
    """
    window = window or n_fft
    if len(signal) < window:
        return np.zeros((0, n_mels), np.float32)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    frames = np.lib.stride_tricks.sliding_window_view(np.asarray(signal, np.float64), window)[::hop]
    spectra = np.abs(np.fft.rfft(frames * hann, n_fft)) ** power
    filters = mel_filters(rate, n_fft, n_mels, low_hz, high_hz, scale, equal_area)
    return np.log(np.maximum(spectra @ filters.T, floor)).astype(np.float32)


def mfcc(signal: np.ndarray) -> np.ndarray:
    """MFCC as ``python_speech_features.mfcc(signal, 16000)`` with its defaults gives them.

    Pre-emphasis 0.97, 25 ms frames every 10 ms without a window, 512-point FFT, 26 filters, 13 cepstra, lifter
    22, and the log energy for the first. Both lip-sync networks expect the amplitudes of 16-bit samples.

    Args:
        signal: ``[n]`` at 16 kHz, of −32768…32767 (``speech * 32768``).

    Returns:
        float64 ``[frames, 13]`` with ``frames = 1 + ceil((n - 400) / 160)``, at least 1; the last frame is
        padded with zeros. ``[0, 13]`` of an empty signal.
    """
    size, step, n_fft = 400, 160, 512
    if len(signal) == 0:
        return np.zeros((0, 13))
    signal = np.asarray(signal, np.float64)
    emphasised = np.append(signal[0], signal[1:] - 0.97 * signal[:-1])
    count = 1 + max(0, -(-(len(signal) - size) // step))
    padded = np.pad(emphasised, (0, max(0, (count - 1) * step + size - len(signal))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[: count * step : step]
    power = np.abs(np.fft.rfft(frames, n_fft)) ** 2 / n_fft
    tiny = np.finfo(np.float64).eps
    energy = power.sum(axis=1)
    bands = power @ _whole_bin_filters().T
    bands, energy = np.where(bands == 0, tiny, bands), np.where(energy == 0, tiny, energy)
    cepstra = dct(np.log(bands), type=2, axis=1, norm="ortho")[:, :13]
    cepstra *= 1 + 11 * np.sin(np.pi * np.arange(13) / 22)
    cepstra[:, 0] = np.log(energy)
    return cepstra


@lru_cache(maxsize=1)
def _whole_bin_filters() -> np.ndarray:
    """26 triangles ``[26, 257]`` whose corners are rounded down to whole FFT bins, as that package has them."""
    edges = mel_to_hz(np.linspace(0, hz_to_mel(8000.0, "htk"), 28), "htk")
    corners = np.floor(513 * edges / 16_000)[:, None]
    bins = np.arange(257)
    low, peak, high = corners[:-2], corners[1:-1], corners[2:]
    rising = (bins >= low) & (bins < peak)
    falling = (bins >= peak) & (bins < high)
    return np.where(rising, (bins - low) / np.maximum(peak - low, 1), 0) + np.where(
        falling, (high - bins) / np.maximum(high - peak, 1), 0
    )
