"""Speech level against noise floor, from the short-time spectrum of 16 kHz audio and its voice activity.

Both estimates are over 80–8000 Hz (rumble that nobody hears is no noise) and take the noise's power off the
speech frames' before the ratio, so 0 dB means as much speech as noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from media.clip import SPEECH_RATE
from perception.intervals import Interval, mask_of
from perception.vad import WINDOW, WINDOW_S

_LOWEST_HZ = 80.0
_DIGITAL_ZERO = 2.0**-32  # frame power under half a 16-bit step: a gate or an edit, not the place's noise
_MAYBE_SPEECH = 0.35
_GUARD = 3
_MIN_PAUSE_S = 0.3  # pause needed in all for a floor that one breath does not decide
_SMOOTHING = 5  # frames of the minimum statistics' running mean
_QUANTILE = 0.1
_BIAS = 0.4865  # 10 % quantile of a mean of five exponential powers over their mean, Gamma(5, 1/5)
_STEP = 10  # frames a value over time
_RANGE_DB = (-20.0, 80.0)


def frame_powers(speech: np.ndarray) -> np.ndarray:
    """float64 ``[frames, bins]``: power of each 32 ms frame from 80 Hz up; a frame's sum is its mean square."""
    count = len(speech) // WINDOW
    window = np.hanning(WINDOW)
    spectrum = np.fft.rfft(speech[: count * WINDOW].reshape(count, WINDOW) * window, axis=1)
    scale = 2 / (WINDOW * np.square(window).sum())
    lowest = math.ceil(_LOWEST_HZ * WINDOW / SPEECH_RATE)
    return np.square(np.abs(spectrum[:, lowest:])) * scale


def speech_frames(intervals: Sequence[Interval], count: int) -> np.ndarray:
    """bool ``[count]``: 32 ms frames whose middle lies in an interval."""
    return mask_of(intervals, (np.arange(count) + 0.5) * WINDOW_S)


def pause_frames(intervals: Sequence[Interval], probabilities: np.ndarray, count: int) -> np.ndarray:
    """bool ``[count]``: frames away from speech, short bursts that make no interval included.

    Three frames (0.1 s) around speech are left out for reverberation and the detector's own lag.
    """
    voiced = speech_frames(intervals, count) | (probabilities[:count] >= _MAYBE_SPEECH)
    return ~np.convolve(voiced, np.ones(2 * _GUARD + 1))[_GUARD : _GUARD + count].astype(bool)


def pause_floor(powers: np.ndarray, pause: np.ndarray) -> float | None:
    """Noise power: the median over ``pause`` frames that are not digital silence; ``None`` under 0.3 s of them."""
    level = powers.sum(axis=1)
    level = level[pause & (level > _DIGITAL_ZERO)]
    return float(np.median(level)) if len(level) * WINDOW_S >= _MIN_PAUSE_S else None


def spectral_floor(powers: np.ndarray) -> float | None:
    """Noise power without pauses: per frequency the 10 % quantile of the smoothed power over time.

    Speech leaves every frequency now and then, even where it never stops (minimum statistics, Martin 2001, with
    a quantile for the minimum). ``None`` where under 0.5 s is not digital silence.
    """
    alive = powers[powers.sum(axis=1) > _DIGITAL_ZERO]
    if len(alive) * WINDOW_S < 0.5:
        return None
    total = np.cumsum(np.vstack([np.zeros(alive.shape[1]), alive]), axis=0)
    smooth = (total[_SMOOTHING:] - total[:-_SMOOTHING]) / _SMOOTHING
    return float(np.quantile(smooth, _QUANTILE, axis=0).sum() / _BIAS)


def ratio_db(speech: float, noise: float) -> float:
    """Power of speech and noise together against noise, as an SNR in dB within −20…80."""
    if noise < 1e-20:
        return _RANGE_DB[1]
    clean = max(speech - noise, noise * 10 ** (_RANGE_DB[0] / 10))
    return float(np.clip(10 * math.log10(clean / noise), *_RANGE_DB))


def speech_snr_db(speech: np.ndarray, intervals: Sequence[Interval], probabilities: np.ndarray) -> float | None:
    """SNR in dB of 16 kHz ``speech`` ``[n]``, against its pauses where they are long enough, else its spectral floor.

    Args:
        intervals: where speech is, in seconds.
        probabilities: of speech, one a 32 ms window, as :class:`perception.vad.SpeechDetector` gives them.

    Returns:
        dB within −20…80; ``None`` without speech or without a floor.
    """
    powers = frame_powers(speech)
    spoken = speech_frames(intervals, len(powers))
    floor = pause_floor(powers, pause_frames(intervals, probabilities, len(powers)))
    floor = spectral_floor(powers) if floor is None else floor
    if floor is None or not spoken.any():
        return None
    return ratio_db(float(powers[spoken].sum(axis=1).mean()), floor)


def ratio_over_time(powers: np.ndarray, speech: np.ndarray) -> list[float | None]:
    """SNR in dB of each 0.32 s (ten frames) against the spectral floor of the 3.2 s around it.

    ``None`` where a step holds no ``speech`` frame or its surroundings no floor. Being local, it falls where a
    noise comes up in mid-clip; being spectral, it reads a few dB low in clean speech.
    """
    level = powers.sum(axis=1)
    series: list[float | None] = []
    for start in range(0, len(powers), _STEP):
        here = slice(start, start + _STEP)
        floor = spectral_floor(powers[max(0, start - 4 * _STEP - _STEP // 2) : start + 5 * _STEP + _STEP // 2])
        spoken = level[here][speech[here]]
        series.append(ratio_db(float(spoken.mean()), floor) if len(spoken) and floor is not None else None)
    return series
