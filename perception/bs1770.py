"""Loudness and true peak of ITU-R BS.1770-4."""

from __future__ import annotations

import math

import numpy as np
from scipy.signal import sosfilt

_BLOCK_S = 0.4
_OVERLAP = 4  # gating blocks overlap by 75 %
_ABSOLUTE_GATE = -70.0
_RELATIVE_GATE = -10.0
# Weights of the channels in the order in which FFmpeg gives the usual layouts: surrounds at the side count
# 1.41 (+1.5 dB), low-frequency effects nothing. Back channels of 7.1 stand outside the ±60…120° of the rule.
_CHANNEL_WEIGHTS = {
    5: (1.0, 1.0, 1.0, 1.41, 1.41),
    6: (1.0, 1.0, 1.0, 0.0, 1.41, 1.41),
    8: (1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.41, 1.41),
}


def integrated_loudness(audio: np.ndarray, rate: int) -> float | None:
    """Gated loudness in LUFS of float ``[channels, n]`` at ``rate`` Hz.

    ``None`` where the standard defines none: under 0.4 s, or nothing above the absolute gate of −70 LUFS.
    """
    hop = round(rate * _BLOCK_S / _OVERLAP)
    hops = audio.shape[1] // hop if hop else 0
    if hops < _OVERLAP:
        return None
    weighted = sosfilt(k_weighting(rate), audio[:, : hops * hop], axis=1)
    energy = np.einsum("chn,chn->ch", *[weighted.reshape(len(audio), hops, hop)] * 2)
    blocks = np.lib.stride_tricks.sliding_window_view(energy, _OVERLAP, axis=1).sum(-1) / (hop * _OVERLAP)
    power = np.array(_CHANNEL_WEIGHTS.get(len(audio), (1.0,) * len(audio))) @ blocks
    gated = power[power > _power(_ABSOLUTE_GATE)]
    if not len(gated):
        return None
    gated = gated[gated > gated.mean() * 10 ** (_RELATIVE_GATE / 10)]
    return -0.691 + 10 * math.log10(gated.mean())


def k_weighting(rate: int) -> np.ndarray:
    """Second-order sections of the K filter: the standard's two 48 kHz stages, re-derived for ``rate``.

    The analogue prototypes (a high shelf of 4 dB at 1682 Hz, a high pass at 38 Hz) are those that give the
    standard's coefficients at 48 kHz under the bilinear transform.
    """
    k = math.tan(math.pi * 1681.974450955533 / rate)
    q, high = 0.7071752369554196, 10 ** (3.999843853973347 / 20)
    band = high**0.4996667741545416
    shelf = (high + band * k / q + k * k, 2 * (k * k - high), high - band * k / q + k * k)
    shelf_poles = (1 + k / q + k * k, 2 * (k * k - 1), 1 - k / q + k * k)
    k = math.tan(math.pi * 38.13547087602444 / rate)
    q = 0.5003270373238773
    high_pass_poles = (1 + k / q + k * k, 2 * (k * k - 1), 1 - k / q + k * k)
    first = np.array(shelf + shelf_poles) / shelf_poles[0]
    # The standard's second stage has the numerator 1, −2, 1 as it stands, not divided by the leading pole.
    second = np.concatenate([(1.0, -2.0, 1.0), np.array(high_pass_poles) / high_pass_poles[0]])
    return np.stack([first, second])


def true_peak(audio: np.ndarray) -> float:
    """Largest absolute value of the fourfold oversampled signal (full scale 1), 0 for an empty one.

    Only the surroundings of samples within 3 dB of the sample peak are oversampled: a peak between samples that
    rises further than that above its neighbours takes a signal near half the sampling rate.
    """
    if not audio.size:
        return 0.0
    level = np.abs(audio)
    peak = float(level.max())
    if peak == 0.0:
        return 0.0
    padded = np.pad(audio, ((0, 0), (_TAPS // 2, _TAPS // 2)))
    around = np.lib.stride_tricks.sliding_window_view(padded, _TAPS, axis=1)[:, :-1]
    channel, sample = np.nonzero(level >= peak * 0.7)
    between = around[channel[:_MAX_CANDIDATES], sample[:_MAX_CANDIDATES]] @ _BETWEEN
    return max(peak, float(np.abs(between).max()))


def _interpolators() -> np.ndarray:
    """``[taps, 6]``: windowed sinc at the six quarter points around the middle tap."""
    quarters = np.array([-0.75, -0.5, -0.25, 0.25, 0.5, 0.75])
    distance = np.arange(_TAPS)[:, None] - _TAPS // 2 - quarters
    taps = np.sinc(distance) * np.i0(6.0 * np.sqrt(np.clip(1 - (distance / (_TAPS // 2 + 1)) ** 2, 0, 1))) / np.i0(6.0)
    return (taps / taps.sum(0)).astype(np.float32)


_TAPS = 32
_MAX_CANDIDATES = 50_000  # bounds memory where the whole clip is clipped, and its sample peak says all
_BETWEEN = _interpolators()


def _power(loudness: float) -> float:
    return 10 ** ((loudness + 0.691) / 10)
