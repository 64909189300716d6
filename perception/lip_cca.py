"""lip_cca: this project's own estimator of audio-video offset, from lip landmarks and a mel spectrogram.

Canonical correlation analysis (Hotelling 1936) finds directions in which five frames of lip shape and the five frames
of audio under them move together. A clip's curve is the correlation along those directions, averaged, with the audio
moved by each lag; its peak is the offset, and how far the peak stands over the rest is the evidence. Trained by
:mod:`perception.train_lip_cca`; what it can and cannot do is in ``docs/lip_cca.md``. It is not SyncNet, and
SyncNet's thresholds mean nothing here.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

import numpy as np

from media.clip import GRID_FPS, SPEECH_RATE
from media.mel import log_mel

MODEL_FILE = Path(__file__).with_name("lip_cca.npz")
MAX_LAG = 37  # frames searched to either side, 1.48 s
REACH = 2  # frames of context to either side
SMOOTH = 37  # frames (1.5 s) of the running mean that is taken off lips and audio
MELS = 40
SPECTRUM = 400  # samples of a spectrum, 25 ms
LEVEL = 0.05  # root mean square that all audio is brought to
STEPS = 4  # spectra a frame, one each 10 ms
MIN_OVERLAP = 30  # frames that a lag needs to be judged at all
DIGITAL_SILENCE = 1e-4  # -80 dB of full scale
NEAR_FRAMES = 3  # lags about 0 that ``sync_evidence`` covers

# Points of the 468-point face mesh: both lip contours, and points that stay put when a mouth moves.
_OUTER_LIP = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 185, 40, 39, 37, 0, 267, 269, 270, 409)
_INNER_LIP = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 191, 80, 81, 82, 13, 312, 311, 310, 415)
LIPS = np.array(_OUTER_LIP + _INNER_LIP)
STILL = np.array(
    [33, 133, 362, 263, 168, 6, 197, 195, 5, 10, 151, 9, 8, 127, 356, 70, 300, 105, 334, 1, 4, 98, 327, 234, 454]
)


@dataclass(frozen=True, slots=True)
class LipCca:
    """The trained estimator.

    Attributes:
        face: float32 ``[25, 3]``, the mean place of :data:`STILL` that every frame's face is laid onto.
        lips: float32 ``[600, K]``, five frames of aligned lip points to canonical coordinates.
        audio: float32 ``[800, K]``, five frames of log-mel spectra to canonical coordinates.
        correlations: float32 ``[K]``, canonical correlations, the directions' weights.
        floor_in_sync: evidence within ±3 frames that 0.5 % of wrong audio reaches, measured by cross-validation.
        floor_offset: the same at any lag; higher, for there are more lags to be wrong at.
    """

    face: np.ndarray
    lips: np.ndarray
    audio: np.ndarray
    correlations: np.ndarray
    floor_in_sync: float
    floor_offset: float

    def save(self, path: Path) -> None:
        """Write the arrays as an ``.npz`` that :func:`load_lip_cca` reads."""
        np.savez(path, **{field.name: np.float32(getattr(self, field.name)) for field in fields(self)})


@cache
def load_lip_cca(path: Path = MODEL_FILE) -> LipCca:
    """The estimator stored at ``path``, by default the one that ships with the project."""
    with np.load(path, allow_pickle=False) as arrays:
        values = {field.name: arrays[field.name] for field in fields(LipCca)}
    return LipCca(**{name: value if value.ndim else float(value) for name, value in values.items()})


@dataclass(frozen=True, slots=True)
class SyncEstimate:
    """What the estimator says of one face track.

    Attributes:
        offset: frames at 25 fps by which the audio is late, −37…37.
        offset_s: the same in seconds, refined between frames by a parabola through the peak.
        confidence: the curve's maximum minus its median, 0…1.
        evidence: ``confidence × √frames``; comparable between clips of different length.
        sync_evidence: the same for the best lag within ±3 frames: how much speaks for being in sync.
        frames: video frames compared.
        curve: float32 ``[75]``, mean canonical correlation with the audio taken −37…37 frames later; 0 where too
            little of the audio overlaps.
    """

    offset: int
    offset_s: float
    confidence: float
    evidence: float
    sync_evidence: float
    frames: int
    curve: np.ndarray


def align_lips(landmarks: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Lip points free of the head's place, size and pose.

    Args:
        landmarks: float ``[n, 468, 3]`` in pixels (z on the scale of x); NaN where a frame has none.
        face: the model's ``face``, or any other ``[25, 3]`` reference.

    Returns:
        float64 ``[n, 120]``; frames without landmarks are interpolated from their neighbours.
    """
    known = np.flatnonzero(np.isfinite(landmarks).all((1, 2)))
    points = landmarks[known].astype(np.float64)
    centre = points[:, STILL].mean(1, keepdims=True)
    rotation, scale = onto(points[:, STILL] - centre, face - face.mean(0))
    lips = (scale[:, None, None] * (points[:, LIPS] - centre) @ rotation).reshape(len(known), -1)
    everywhere = np.arange(len(landmarks))
    return np.stack([np.interp(everywhere, known, column) for column in lips.T], axis=1)


def onto(points: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotations ``[n, 3, 3]`` and scales ``[n]`` that lay centred ``points`` onto ``target`` (Umeyama 1991)."""
    u, spectrum, v = np.linalg.svd(np.einsum("nki,kj->nij", points, target))
    signs = np.ones_like(spectrum)
    signs[:, 2] = np.sign(np.linalg.det(u @ v))
    return (u * signs[:, None]) @ v, (spectrum * signs).sum(1) / np.square(points).sum((1, 2))


def mel_spectra(speech: np.ndarray) -> np.ndarray:
    """Log-mel spectra of 16 kHz audio at a fixed level: float64 ``[frames, 160]``, four spectra of 40 bands a frame."""
    level = float(np.sqrt(np.mean(np.square(speech, dtype=np.float64)))) if len(speech) else 0.0
    padded = np.pad(speech * (LEVEL / max(level, 1e-5)), SPECTRUM // 2)
    spectra = log_mel(
        padded,
        SPEECH_RATE,
        n_fft=512,
        window=SPECTRUM,
        hop=SPEECH_RATE // 100,
        n_mels=MELS,
        low_hz=60,
        high_hz=7600,
        scale="htk",
        equal_area=False,
        floor=1e-6,
    ).astype(np.float64)
    return spectra[: len(spectra) // STEPS * STEPS].reshape(-1, STEPS * MELS)


def detrend(series: np.ndarray) -> np.ndarray:
    """``series`` ``[n, d]`` less its running mean over 1.5 s."""
    half = SMOOTH // 2
    total = np.concatenate([np.zeros((1, series.shape[1])), np.cumsum(series, 0)])
    index = np.arange(len(series))
    start, end = np.maximum(index - half, 0), np.minimum(index + half + 1, len(series))
    return series - (total[end] - total[start]) / (end - start)[:, None]


def in_context(series: np.ndarray) -> np.ndarray:
    """Each frame with the two before and the two after it: ``[n, d]`` -> ``[n, 5 d]``."""
    index = np.arange(len(series))
    taps = [series[np.clip(index + tap, 0, len(series) - 1)] for tap in range(-REACH, REACH + 1)]
    return np.concatenate(taps, axis=1)


def correlate(lips: np.ndarray, audio: np.ndarray, weights: np.ndarray, start: int = 0) -> np.ndarray:
    """Correlation of two canonical series at every lag.

    Args:
        lips: ``[n, K]``, frames ``start … start + n`` of the clip.
        audio: ``[m, K]`` from the clip's frame 0.
        weights: ``[K]`` of the directions.

    Returns:
        float64 ``[75]``. Correlations over fewer frames vary more; each is scaled by √(frames / n) for that.
    """
    curve = np.zeros(2 * MAX_LAG + 1)
    for lag in range(-MAX_LAG, MAX_LAG + 1):
        first, last = max(0, -(start + lag)), min(len(lips), len(audio) - start - lag)
        if last - first < MIN_OVERLAP:
            continue
        x, y = lips[first:last], audio[start + lag + first : start + lag + last]
        x, y = x - x.mean(0), y - y.mean(0)
        each = (x * y).sum(0) / np.sqrt(np.square(x).sum(0) * np.square(y).sum(0) + 1e-9)
        curve[lag + MAX_LAG] = each @ weights / weights.sum() * np.sqrt((last - first) / len(lips))
    return curve


def read_curve(curve: np.ndarray, frames: int) -> SyncEstimate:
    """Offset and evidence of a curve over ``frames`` frames."""
    best = int(curve.argmax())
    confidence = float(curve[best] - np.median(curve))
    bend = 0.0
    if 0 < best < len(curve) - 1:
        before, at, after = curve[best - 1 : best + 2]
        if (slope := before - 2 * at + after) < 0:
            bend = 0.5 * (before - after) / slope
    offset = best - MAX_LAG
    near = curve[MAX_LAG - NEAR_FRAMES : MAX_LAG + NEAR_FRAMES + 1]
    return SyncEstimate(
        offset=offset,
        offset_s=float((offset + bend) / GRID_FPS),
        confidence=confidence,
        evidence=confidence * frames**0.5,
        sync_evidence=float(near.max() - np.median(curve)) * frames**0.5,
        frames=frames,
        curve=curve.astype(np.float32),
    )


def lip_series(model: LipCca, landmarks: np.ndarray) -> np.ndarray:
    """``[n, 468, 3]`` landmarks at 25 fps, as for :func:`align_lips`, to canonical coordinates ``[n, K]``."""
    return in_context(detrend(align_lips(landmarks, model.face))) @ model.lips


def audio_series(model: LipCca, speech: np.ndarray) -> tuple[int, np.ndarray]:
    """16 kHz audio to its first frame that is not digital silence and canonical coordinates ``[m, K]`` from there."""
    first, heard = _audible(speech)
    return first, in_context(detrend(mel_spectra(heard))) @ model.audio


def estimate(model: LipCca, landmarks: np.ndarray, speech: np.ndarray, start: int = 0) -> SyncEstimate:
    """Offset between a face and the audio.

    Args:
        landmarks: float ``[n, 468, 3]`` at 25 fps, as for :func:`align_lips`, of the clip's frames from ``start``.
        speech: float ``[samples]``, 16 kHz mono from the clip's beginning.
    """
    return compare(model, lip_series(model, landmarks), audio_series(model, speech), start)


def compare(model: LipCca, lips: np.ndarray, audio: tuple[int, np.ndarray], start: int = 0) -> SyncEstimate:
    """Offset between :func:`lip_series` of the frames from ``start`` and :func:`audio_series` of the clip."""
    first, spectra = audio
    return read_curve(correlate(lips, spectra, model.correlations, start - first), len(lips))


def _audible(speech: np.ndarray) -> tuple[int, np.ndarray]:
    """The first frame that is not digital silence, and the audio from it to the last such frame.

    What a re-timed track is padded with is no pause of the speaker's.
    """
    per_frame = round(SPEECH_RATE / GRID_FPS)
    loud = np.flatnonzero(np.abs(speech) > DIGITAL_SILENCE)
    if not len(loud):
        return 0, speech[:0]
    first, last = loud[0] // per_frame, -(-(loud[-1] + 1) // per_frame)
    return int(first), speech[first * per_frame : last * per_frame]


def move_audio(speech: np.ndarray, late_s: float, rate: int = SPEECH_RATE) -> np.ndarray:
    """``speech`` ``[…, samples]`` played ``late_s`` seconds earlier, same length, silence where nothing is left."""
    shift = round(late_s * rate)
    moved = np.zeros_like(speech)
    if shift >= 0:
        moved[..., : max(speech.shape[-1] - shift, 0)] = speech[..., shift:]
    else:
        moved[..., -shift:] = speech[..., :shift]
    return moved
