"""What can be told of a clip of the tiny world from its pixels and its samples alone.

Used on generated samples as on the world's own clips, which gives the ceiling of every measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.signal import find_peaks

from media.mel import mel_filters
from pipelines.tiny_world import face, voice
from pipelines.tiny_world.world import HEADS, PITCH_HZ, WORDS, Look, Voice

ENVELOPE_HZ = 40.0
_MOUTH = (slice(17, 28), slice(8, 24))  # below the eyes, and within the narrowest head
_NEAR_S = 0.1  # of the middle of a syllable, which is at least 0.24 s long
_PIECE = 512  # samples in which a word is recognised, 64 ms
_TIMBRES = np.linspace(-0.25, 1.25, 31)


@dataclass(frozen=True)
class SpokenWords:
    """A voice and its words; a pitch and timbre of nan where nothing is voiced."""

    voice: Voice
    words: tuple[str, ...]


def envelope(audio: np.ndarray, rate: int = voice.RATE) -> np.ndarray:
    """Root mean square of ``audio`` over 50 ms, float64 ``[seconds * ENVELOPE_HZ]``; value *k* is of the middle of its
    time, (k + 1/2) / ENVELOPE_HZ."""
    hop = round(rate / ENVELOPE_HZ)
    frames = len(audio) // hop
    padded = np.pad(np.asarray(audio, np.float64)[: frames * hop] ** 2, hop // 2)
    energy = np.concatenate(([0.0], np.cumsum(padded)))
    starts = np.arange(frames) * hop
    return np.sqrt((energy[starts + 2 * hop] - energy[starts]) / (2 * hop))


def mouth_covers(video: np.ndarray) -> np.ndarray:
    """How much of each pixel around the mouth is open mouth, by its colour between skin and mouth: 0…1
    ``[frames, 11, 16]``.

    Args:
        video: uint8 ``[frames, SIDE, SIDE, 3]``.
    """
    pixels = video.astype(np.float64)
    skin = np.median(pixels[:, 16:18, 12:20].reshape(-1, 3), axis=0)
    towards = np.array(face.MOUTH_RGB) - skin
    return np.clip((pixels[(slice(None), *_MOUTH)] - skin) @ towards / (towards @ towards), 0, 1)


def heights(video: np.ndarray) -> np.ndarray:
    """How far the mouth is open in its middle, pixels ``[frames]``."""
    covers = mouth_covers(video)[:, :, 7:9].mean(2)
    return np.where(covers > 0.15, covers, 0.0).sum(1)


def opening(video: np.ndarray, frames: int, fps: float = face.FPS) -> np.ndarray:
    """:func:`heights` at the times of an :func:`envelope` of ``frames``."""
    times = (np.arange(len(video)) + 0.5) / fps
    return np.interp((np.arange(frames) + 0.5) / ENVELOPE_HZ, times, heights(video))


def syllables(loudness: np.ndarray) -> np.ndarray:
    """Places of the syllables in an envelope, ascending: peaks that stand out."""
    scale = voice.LEVEL
    peaks, _ = find_peaks(np.pad(loudness, 1), height=0.3 * scale, prominence=0.2 * scale, distance=6)
    return peaks - 1


def look(video: np.ndarray) -> tuple[Look, float]:
    """Who is seen, by the nearest colours, and how far those are: root mean square over channels of 0…1."""
    pixels = np.median(video.astype(np.float64), axis=0)
    seen = {
        "skin": (pixels[16:18, 12:20], face.SKIN_RGB),
        "hair": (pixels[5:8, 13:19], face.HAIR_RGB),
        "wall": (np.concatenate((pixels[2:30, :2], pixels[2:30, -2:]), 1), face.WALL_RGB),
    }
    names, errors = {}, []
    for part, (patch, colours) in seen.items():
        colour = np.median(patch.reshape(-1, 3), axis=0)
        distances = {name: np.linalg.norm(colour - rgb) for name, rgb in colours.items()}
        names[part] = min(distances, key=distances.get)
        errors.append(distances[names[part]])
    # beside the cheeks a long head leaves the wall free
    sides = np.concatenate((pixels[20:22, 6:7], pixels[20:22, 25:26]), 1).reshape(-1, 3).mean(0)
    to_wall, to_skin = (np.linalg.norm(sides - np.median(seen[p][0].reshape(-1, 3), axis=0)) for p in ("wall", "skin"))
    return Look(**names, head=HEADS[int(to_wall < to_skin)]), float(np.sqrt(np.square(errors).mean() / 3) / 255)


def pitch_hz(audio: np.ndarray, rate: int = voice.RATE) -> float:
    """The pitch of all of ``audio``, which has but one: the peak of its autocorrelation; nan in silence."""
    spectrum = np.fft.rfft(audio, 2 * len(audio))
    correlation = np.fft.irfft(np.abs(spectrum) ** 2)
    if correlation[0] < 1e-6 * len(audio):
        return float("nan")
    low, high = int(rate / (PITCH_HZ[1] * 1.06)), int(rate / (PITCH_HZ[0] / 1.06)) + 1
    lag = low + int(correlation[low : high + 1].argmax())
    before, peak, after = correlation[lag - 1 : lag + 2]
    bend = before - 2 * peak + after
    return rate / (lag + (0.5 * (before - after) / bend if bend else 0.0))


def hear(audio: np.ndarray) -> SpokenWords:
    """Voice and words of ``audio``, by comparing each syllable with all words in all timbres at the audio's pitch."""
    hz = pitch_hz(audio)
    if np.isnan(hz):
        return SpokenWords(Voice(np.nan, np.nan), ())
    low, high = PITCH_HZ
    pitch = float(np.log2(hz / low) / np.log2(high / low))
    templates = _templates(round(hz, 1))  # (words, timbres, bands)
    hop = round(voice.RATE / ENVELOPE_HZ)
    words, errors = [], []
    for place in syllables(envelope(audio)):
        middle = place * hop + hop // 2
        piece = np.pad(audio, _PIECE)[middle + _PIECE // 2 : middle + 3 * _PIECE // 2]
        error = np.square(_bands(piece[None])[0] - templates).mean(-1)
        words.append(WORDS[int(error.min(1).argmin())])
        errors.append(error[WORDS.index(words[-1])])
    timbre = float(_TIMBRES[np.mean(errors, axis=0).argmin()]) if errors else float("nan")
    return SpokenWords(Voice(pitch, timbre), tuple(words))


def words_seen(video: np.ndarray, times_s: Sequence[float], fps: float = face.FPS) -> tuple[str, ...]:
    """The word that the mouth forms around each of the given times, by comparing it with all words and openings."""
    shapes = _shapes()  # (words, heights, pixels)
    covers = mouth_covers(video).reshape(len(video), 1, 1, -1)
    times = (np.arange(len(video)) + 0.5) / fps
    found = []
    for time_s in times_s:
        near = covers[np.abs(times - time_s) < _NEAR_S]
        errors = np.square(near - shapes).sum(-1).min(2).sum(0)
        found.append(WORDS[int(errors.argmin())])
    return tuple(found)


def flicker(video: np.ndarray) -> float:
    """Standard deviation over time of the wall's pixels, which stand still in the world, of 0…1."""
    return float((video[:, 2:30, :2] / 255.0).std(0).mean())


@dataclass(frozen=True)
class Profile:
    """Of real clips.

    Attributes:
        envelope, opening: mean course in time, float64 ``[frames]``: clips begin and end silent, so even the audio of
            one and the mouth of another agree a little, unless that is taken away first.
        least: deviations over time of an envelope and of an opening below which nothing is heard or moves, a tenth of
            what they are on average. What is left of a still one is the mean course, which agrees with any other's.
    """

    envelope: np.ndarray
    opening: np.ndarray
    least: tuple[float, float]

    @classmethod
    def of(cls, envelopes: np.ndarray, openings: np.ndarray) -> Profile:
        """Of ``[clips, frames]`` each."""
        least = tuple(0.1 * float(course.std(1).mean()) for course in (envelopes, openings))
        return cls(envelopes.mean(0), openings.mean(0), least)

    def correlations(self, envelopes: np.ndarray, openings: np.ndarray) -> np.ndarray:
        """Pearson's of each clip, ``[clips]``; 0 where nothing is heard or nothing moves."""
        active = (envelopes.std(1) >= self.least[0]) & (openings.std(1) >= self.least[1])
        return np.where(active, _pearson(envelopes - self.envelope, openings - self.opening), 0.0)

    def lag_s(self, envelopes: np.ndarray, openings: np.ndarray, most_s: float = 0.4) -> float:
        """Seconds by which mouths are late where they agree best with the audio, in steps of 1 / ENVELOPE_HZ."""
        heard, seen = envelopes - self.envelope, openings - self.opening
        frames, most = heard.shape[1], round(most_s * ENVELOPE_HZ)
        agreement = {
            lag: _pearson(
                heard[:, max(0, -lag) : frames - max(0, lag)], seen[:, max(0, lag) : frames + min(0, lag)]
            ).mean()
            for lag in range(-most, most + 1)
        }
        return max(agreement, key=agreement.get) / ENVELOPE_HZ


def _pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    scale = np.sqrt((x**2).sum(1) * (y**2).sum(1))
    return (x * y).sum(1) / np.maximum(scale, 1e-12)


def edit_rate(found: Sequence[str], truth: Sequence[str]) -> float:
    """Levenshtein distance over the number of true words."""
    row = list(range(len(found) + 1))
    for number, word in enumerate(truth, 1):
        last, row = row, [number]
        for place, other in enumerate(found, 1):
            row.append(min(last[place] + 1, row[-1] + 1, last[place - 1] + (word != other)))
    return row[-1] / len(truth)


def _bands(pieces: np.ndarray) -> np.ndarray:
    """Logarithms of band energies of ``[n, _PIECE]``, free of loudness: ``[n, 24]``."""
    window = np.hanning(pieces.shape[1])
    power = np.abs(np.fft.rfft(pieces * window)) ** 2
    bands = power @ mel_filters(voice.RATE, _PIECE, 24, 100.0, voice.HIGHEST_HZ).T
    logs = np.log(bands / bands.sum(1, keepdims=True).clip(1e-12) + 1e-4)
    return logs - logs.mean(1, keepdims=True)


@cache
def _shapes() -> np.ndarray:
    """Covers of every word at many openings, ``[words, openings, pixels]``."""
    openings = np.arange(0.5, face.MOUTH_HEIGHT + 0.5, 0.5)
    return np.stack([[face.mouth_cover(word, height)[_MOUTH].ravel() for height in openings] for word in WORDS])


@cache
def _templates(hz: float) -> np.ndarray:
    """Bands of every word in every timbre at a pitch, ``[words, timbres, 24]``."""
    tones = voice.harmonics(hz)
    waves = np.cos(2 * np.pi * np.outer(tones, np.arange(_PIECE) / voice.RATE))
    gains = np.stack([[voice.word_db(word, tones) + voice.tilt_db(t, tones) for t in _TIMBRES] for word in WORDS])
    return _bands((10 ** (gains / 20) @ waves).reshape(-1, _PIECE)).reshape(len(WORDS), len(_TIMBRES), -1)
