"""The faults that the demo plants in good clips: each changes frames or audio in the one way that its name says.

Frames are sequences of uint8 RGB ``[h, w, 3]`` at 25 fps; audio is float32 ``[n]`` in −1…1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

_BEAT_S = 0.5
_CHORDS = ((220.0, 261.63, 329.63), (174.61, 220.0, 261.63), (261.63, 329.63, 392.0), (196.0, 246.94, 293.66))
_PARTIALS = 6


def freeze(frames: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The middle frame, all the time."""
    return [frames[len(frames) // 2]] * len(frames)


def subtitle(frames: Sequence[np.ndarray], text: str, words: int = 4) -> Iterator[np.ndarray]:
    """``text`` burned in near the bottom, ``words`` at a time, white with a dark outline."""
    spoken = text.split()
    lines = [" ".join(spoken[i : i + words]) for i in range(0, len(spoken), words)]
    return (_write(frame, lines[index * len(lines) // len(frames)]) for index, frame in enumerate(frames))


def _write(frame: np.ndarray, line: str) -> np.ndarray:
    height, width = frame.shape[:2]
    font, size = cv2.FONT_HERSHEY_DUPLEX, width / 520
    (across, _), _ = cv2.getTextSize(line, font, size, 1)
    at = ((width - across) // 2, round(0.93 * height))
    image = frame.copy()
    cv2.putText(image, line, at, font, size, (0, 0, 0), 5, cv2.LINE_AA)
    cv2.putText(image, line, at, font, size, (255, 255, 255), 1, cv2.LINE_AA)
    return image


def degrade(frames: Sequence[np.ndarray], side: int = 80, quality: int = 12) -> Iterator[np.ndarray]:
    """Shrunk to ``side`` pixels, compressed as a JPEG of ``quality`` and blown up again."""
    for frame in frames:
        height, width = frame.shape[:2]
        small = cv2.resize(frame, (side, round(side * height / width)), interpolation=cv2.INTER_AREA)
        _, packed = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, quality])
        yield cv2.resize(cv2.imdecode(packed, cv2.IMREAD_COLOR), (width, height))


def drown(speech: np.ndarray, snr_db: float, seed: int) -> np.ndarray:
    """``speech`` in noise between white and pink, ``snr_db`` below the speech where it is loud."""
    random = np.random.default_rng(seed)
    spectrum = np.fft.rfft(random.normal(size=len(speech)))
    noise = np.fft.irfft(spectrum / np.maximum(np.arange(len(spectrum)), 1) ** 0.25, len(speech))
    loud = np.abs(speech) > 0.1 * np.abs(speech).max()
    level = np.sqrt(np.mean(speech[loud] ** 2)) / 10 ** (snr_db / 20)
    return fit_level(speech + (noise * level / noise.std()).astype(np.float32))


def shift(speech: np.ndarray, seconds: float, rate: int) -> np.ndarray:
    """``speech`` late by ``seconds`` (early if negative), of the same length; silence fills the end that is bared."""
    moved = np.zeros_like(speech)
    samples = round(seconds * rate)
    if samples >= 0:
        moved[samples:] = speech[: len(speech) - samples]
    else:
        moved[:samples] = speech[-samples:]
    return moved


def music(seconds: float, rate: int, seed: int) -> np.ndarray:
    """Plucked chords, a bass and a drum: four chords, two beats each."""
    random = np.random.default_rng(seed)
    audio = np.zeros(round(seconds * rate) + rate, np.float64)

    def play(note: np.ndarray, beat: float) -> None:
        start = round(beat * _BEAT_S * rate)
        piece = audio[start : start + len(note)]
        piece += note[: len(piece)]

    for beat in range(int(seconds / _BEAT_S) + 1):
        chord = _CHORDS[beat // 2 % len(_CHORDS)]
        play(_pluck(chord[0] / 2, 0.5, 0.9, rate), beat)
        for step in range(4):
            tone = chord[step % 3] * (2 if random.random() < 0.5 else 1)
            play(_pluck(tone, 0.35, 0.6, rate), beat + step / 4)
        for tone in chord:
            play(_pluck(tone, 0.2, 1.0, rate), beat)
        times = np.arange(round(0.12 * rate)) / rate
        play(0.8 * np.sin(2 * np.pi * 60 * times) * np.exp(-times / 0.04), beat)
        play(0.15 * random.normal(size=len(times)) * np.exp(-times / 0.02), beat + 0.5)
    return fit_level(audio[: round(seconds * rate)].astype(np.float32))


def _pluck(hz: float, level: float, seconds: float, rate: int) -> np.ndarray:
    """A string: harmonics that fall off, the higher the faster."""
    times = np.arange(round(seconds * rate)) / rate
    partials = np.arange(1, _PARTIALS + 1)[:, None]
    harmonics = np.sin(2 * np.pi * hz * partials * times) * np.exp(-times * (2 + 2 * partials)) / partials
    return level * harmonics.sum(axis=0)


def fit_level(audio: np.ndarray, peak: float = 0.7) -> np.ndarray:
    """Scaled so that its peak is ``peak``."""
    return (audio * (peak / max(float(np.abs(audio).max()), 1e-6))).astype(np.float32)


def truncate(source: Path, target: Path, share: float = 0.01) -> None:
    """Only the first ``share`` of the file's bytes, as a broken download leaves it: the index in front is cut."""
    whole = source.read_bytes()
    target.write_bytes(whole[: int(share * len(whole))])
