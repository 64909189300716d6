"""The audio of the tiny world: harmonics of a pitch, tilted by timbre, shaped by the formants of each word."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pipelines.tiny_world.world import REFERENCE_SECONDS, Utterance, Voice

RATE = 8000
HIGHEST_HZ = 3800.0
LEVEL = 0.15  # root mean square at full loudness
TILT_DB = (-12.0, 0.0)  # an octave, of the darkest and of the brightest voice
TILT_HZ = 500.0


@dataclass(frozen=True)
class Formants:
    """Resonances of a mouth that says a word, Hz."""

    first: float
    second: float


FORMANTS = {
    "boo": Formants(310.0, 850.0),
    "bow": Formants(520.0, 1000.0),
    "bur": Formants(480.0, 1450.0),
    "bah": Formants(780.0, 1300.0),
    "bay": Formants(480.0, 2050.0),
    "bee": Formants(290.0, 2400.0),
}
_THIRD_HZ = 3000.0


def harmonics(voice_hz: float) -> np.ndarray:
    """Frequencies of a pitch's harmonics, Hz."""
    return voice_hz * np.arange(1, int(HIGHEST_HZ / voice_hz) + 1)


def word_db(word: str, hz: np.ndarray) -> np.ndarray:
    """Gain of a word's formants, dB: a cascade of resonances (Fant 1960)."""
    formants = FORMANTS[word]
    gain = np.zeros_like(hz)
    for centre in (formants.first, formants.second, _THIRD_HZ):
        width = 60.0 + 0.1 * centre
        gain -= 10 * np.log10((1 - (hz / centre) ** 2) ** 2 + (width * hz / centre**2) ** 2)
    return gain


def tilt_db(timbre: float, hz: np.ndarray) -> np.ndarray:
    """Gain of a voice's timbre, dB."""
    dark, bright = TILT_DB
    return (dark + (bright - dark) * timbre) * np.log2(hz / TILT_HZ)


def speak(utterance: Utterance, voice: Voice) -> np.ndarray:
    """float32 ``[round(seconds * RATE)]`` in −1…1; every word is equally strong at equal loudness."""
    audio = np.zeros(round(utterance.seconds * RATE), np.float32)
    hz, tones = _tones(voice.hz)
    for syllable in utterance.syllables:
        begin = int(syllable.start_s * RATE)
        places = np.arange(begin, min(begin + int(syllable.seconds * RATE) + 2, len(audio)))
        amplitudes = 10 ** ((word_db(syllable.word, hz) + tilt_db(voice.timbre, hz)) / 20)
        amplitudes *= LEVEL * np.sqrt(2) / np.linalg.norm(amplitudes)
        audio[places] += amplitudes.astype(np.float32) @ tones[:, places] * syllable.at(places / RATE)
    return audio


@lru_cache(maxsize=1)  # a clip and its references are of one voice
def _tones(voice_hz: float) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies of the harmonics, and float32 ``[harmonics, samples]`` as long as anything that is said."""
    hz = harmonics(voice_hz)
    cycles = np.outer(hz, np.arange(round(REFERENCE_SECONDS * RATE)) / RATE)
    # Phases that rise quadratically keep the peaks low (Schroeder 1970).
    cycles += (np.arange(1, len(hz) + 1) ** 2 / (2 * len(hz)))[:, None]
    return hz, np.cos((2 * np.pi * (cycles % 1)).astype(np.float32))
