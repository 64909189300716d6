"""How a mouth moves with speech, from the audio alone: a rough acoustic model, fitted to nothing.

A lower jaw raises the first formant and lets more of the voice out, so loudness between 300 and 2500 Hz opens it; lip
closures and pauses are quiet there, hissing consonants have their energy above. Spread lips raise the second formant
(*see*), rounded ones lower it (*do*), so the balance of the bands about it sets the width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d, median_filter

FPS = 25
_HOP_S = 0.01
_WINDOW_S = 0.03
_VOICE_HZ = (300, 2500)
_ROUND_HZ = (400, 1200)
_SPREAD_HZ = (1600, 3000)
_RANGE_DB = 30.0  # from a closed mouth to an open one
_JAW_S = 0.025  # standard deviation of the smoothing that the jaw's mass does


@dataclass(frozen=True, slots=True)
class Mouth:
    """One value a frame at :data:`FPS`.

    Attributes:
        opening: float32 ``[T]``, 0 closed … 1 as open as the speaker opens.
        width: float32 ``[T]``, −1 rounded … 1 spread.
    """

    opening: np.ndarray
    width: np.ndarray

    def __len__(self) -> int:
        return len(self.opening)


def articulate(speech: np.ndarray, rate: int) -> Mouth:
    """The mouth that could have made ``speech`` (float32 ``[n]``), one value for each ``1 / FPS`` s begun."""
    frames = int(np.ceil(len(speech) / rate * FPS))
    power, hz = _spectrum(speech, rate)
    voice = _decibel(power, hz, _VOICE_HZ)
    # The loud parts of this very speech are its open vowels, whatever the level of the recording.
    opening = np.clip((voice - np.percentile(voice, 98) + _RANGE_DB) / _RANGE_DB, 0, 1) ** 1.8
    balance = _decibel(power, hz, _SPREAD_HZ) - _decibel(power, hz, _ROUND_HZ)
    voiced = opening > 0.1
    centre = np.median(balance[voiced]) if voiced.any() else 0.0
    width = np.where(voiced, np.clip((balance - centre) / 15, -1, 1), 0)
    width = median_filter(width, 5)
    return Mouth(_at_frames(opening, frames), _at_frames(width, frames))


def closed(frames: int) -> Mouth:
    """A mouth that stays shut."""
    return Mouth(np.zeros(frames, np.float32), np.zeros(frames, np.float32))


def _spectrum(speech: np.ndarray, rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Power ``[n, bins]`` every ``_HOP_S`` about each instant, and the bins' frequencies."""
    size, hop = round(_WINDOW_S * rate), round(_HOP_S * rate)
    padded = np.pad(np.asarray(speech, np.float64), (size // 2, size))
    pieces = np.lib.stride_tricks.sliding_window_view(padded, size)[: len(speech) + 1 : hop]
    return np.abs(np.fft.rfft(pieces * np.hanning(size))) ** 2, np.fft.rfftfreq(size, 1 / rate)


def _decibel(power: np.ndarray, hz: np.ndarray, band: tuple[int, int]) -> np.ndarray:
    return 10 * np.log10(power[:, (hz >= band[0]) & (hz < band[1])].sum(axis=1) + 1e-9)


def _at_frames(series: np.ndarray, frames: int) -> np.ndarray:
    smooth = gaussian_filter1d(series, _JAW_S / _HOP_S, mode="nearest")
    return np.interp(np.arange(frames) / FPS, np.arange(len(series)) * _HOP_S, smooth).astype(np.float32)
