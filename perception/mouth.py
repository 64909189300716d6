"""How a mouth moves, from face landmarks, and how that goes with the audio.

No learned model: a mouth that chews measures as one that talks, and nothing here says whose words it forms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import maximum_filter1d, minimum_filter1d, uniform_filter1d

from media.clip import GRID_FPS, SPEECH_RATE
from media.mel import log_mel

# Points of the 468-point face mesh: middles of the lips' outer and inner edges, and what does not move with them.
_OUTER_UPPER_LIP, _OUTER_LOWER_LIP, _INNER_UPPER_LIP, _INNER_LOWER_LIP = 0, 17, 13, 14
_NOSE, _NOSE_ROOT, _FOREHEAD, _CHIN, _EYES = 2, 168, 10, 152, (33, 263)
# A syllable lasts 0.2 to 0.3 s: a speaking mouth opens and closes within this many frames.
_SYLLABLE = 9
_DRIFT = round(GRID_FPS)  # slower than 1 s is posture, not articulation
_MAX_LAG = 5
# The second formant's range, which follows the jaw better than loudness does.
_BAND_HZ = (900.0, 2400.0)
_MEL_BANDS, _WINDOW, _HOP, _N_FFT = 8, 480, 160, 512
_QUIET = 1e-6


@dataclass(frozen=True, slots=True)
class MouthTrack:
    """A mouth over frames at 25 fps, in units of the face's scale, so that neither size nor distance matters.

    Attributes:
        opening: float ``[n]``, height of the lips, outer edges.
        motion: float ``[n]``, range of ``opening`` over nine frames.
        jaw: float ``[n]``, from nose to chin.
        jitter: the median of what ``motion`` would be for a length that does not change, the nose's.
    """

    opening: np.ndarray
    motion: np.ndarray
    jaw: np.ndarray
    jitter: float


def measure_mouth(landmarks: np.ndarray) -> MouthTrack:
    """The mouth of a track from its landmarks ``[n, 468, 3]``, by lengths in 3-D: turning the head hardly matters."""
    nose = _length(landmarks, _NOSE_ROOT, _NOSE)
    scale = (np.median(_length(landmarks, *_EYES)) + np.median(nose)) / 2
    opening = _length(landmarks, _OUTER_UPPER_LIP, _OUTER_LOWER_LIP) / scale
    jitter = float(np.median(_range(nose / scale)))
    return MouthTrack(opening, _range(opening), _length(landmarks, _NOSE, _CHIN) / scale, jitter)


def lip_gap(landmarks: np.ndarray) -> np.ndarray:
    """Height of the gap between the lips over that of the face, float ``[n]``, of landmarks ``[n, 468, 2 or 3]``."""
    gap = _length(landmarks, _INNER_UPPER_LIP, _INNER_LOWER_LIP)
    return gap / _length(landmarks, _FOREHEAD, _CHIN)


def band_level(speech: np.ndarray, count: int) -> np.ndarray:
    """Mean log-mel level from 0.9 to 2.4 kHz, float ``[count]`` at 25 a second, of 16 kHz speech."""
    steps = round(SPEECH_RATE / GRID_FPS / _HOP)
    padded = np.zeros(count * steps * _HOP + _WINDOW, np.float32)
    lead = (_WINDOW - _HOP) // 2
    kept = speech[: len(padded) - lead]
    padded[lead : lead + len(kept)] = kept
    levels = log_mel(
        padded,
        SPEECH_RATE,
        n_fft=_N_FFT,
        hop=_HOP,
        n_mels=_MEL_BANDS,
        window=_WINDOW,
        low_hz=_BAND_HZ[0],
        high_hz=_BAND_HZ[1],
        floor=_QUIET,
    )
    return levels[: count * steps].mean(1).reshape(count, steps).mean(1)


def best_correlation(jaw: np.ndarray, level: np.ndarray) -> tuple[float, int]:
    """Highest correlation of a jaw with the audio's level, and the frames by which the audio is late there.

    Both lose their drift first. Shifts of up to five frames are tried. 0 at shift 0 where one of them does not change.

    Args:
        jaw, level: float ``[n]`` at 25 a second.
    """
    jaw, level = (series - uniform_filter1d(series, _DRIFT, mode="nearest") for series in (jaw, level))
    found = (0.0, 0)
    for lag in range(-_MAX_LAG, _MAX_LAG + 1):
        a = jaw[max(-lag, 0) : len(jaw) - max(lag, 0)]
        b = level[max(lag, 0) : len(level) - max(-lag, 0)]
        if len(a) > _SYLLABLE and min(a.std(), b.std()) > 1e-6:
            found = max(found, (float(np.corrcoef(a, b)[0, 1]), lag))
    return found


def _length(landmarks: np.ndarray, a: int, b: int) -> np.ndarray:
    return np.linalg.norm(landmarks[:, a] - landmarks[:, b], axis=1)


def _range(series: np.ndarray) -> np.ndarray:
    return maximum_filter1d(series, _SYLLABLE) - minimum_filter1d(series, _SYLLABLE)
