"""One clip as a tile shows it: a strip of tiny frames and the outline of its waveform, from one decode."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass

import cv2
import numpy as np

from media.clip import MediaError
from media.decode import decode_clip

BOX = (208, 130)
FRAMES = 10
COLUMNS = 120
WAVE_HEIGHT = 40
_QUALITY = 52


@dataclass(frozen=True, slots=True)
class ClipRef:
    """Where a clip's media lie; seconds on the source's clock."""

    source_uri: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """What a tile draws.

    Attributes:
        sprite: data URI of a WebP strip of ``frames`` frames side by side, each ``width`` × ``height`` pixels.
        waveform: SVG path data in a box of ``COLUMNS`` × ``WAVE_HEIGHT``, linear amplitude, full scale
            from edge to edge; ``""`` without an audio stream.
        peak_dbfs: highest amplitude in dB of full scale; ``None`` without an audio stream, −inf for silence.
    """

    sprite: str
    frames: int
    width: int
    height: int
    waveform: str
    peak_dbfs: float | None


def thumbnail(ref: ClipRef) -> Thumbnail:
    """Decode a clip once, at tiny size.

    Raises:
        MediaError: the file cannot be decoded or shows no frame in the interval.
    """
    media = decode_clip(
        ref.source_uri, ref.start_s, ref.end_s, needs=frozenset({"frames", "audio"}), frame_side=max(BOX), stills=0
    )
    if len(media.frames) == 0:
        raise MediaError("no frame to show in this interval")
    strip = frame_strip(media.frames)
    ok, packed = cv2.imencode(".webp", cv2.cvtColor(strip, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, _QUALITY])
    if not ok:
        raise MediaError("the thumbnail could not be encoded")
    peak = float(np.abs(media.audio).max(initial=0.0)) if media.has_audio else None
    return Thumbnail(
        sprite="data:image/webp;base64," + base64.b64encode(packed.tobytes()).decode(),
        frames=FRAMES,
        width=strip.shape[1] // FRAMES,
        height=strip.shape[0],
        waveform=waveform_path(media.audio) if media.has_audio else "",
        peak_dbfs=None if peak is None else (20 * math.log10(peak) if peak > 0 else -math.inf),
    )


def frame_strip(frames: np.ndarray) -> np.ndarray:
    """``FRAMES`` frames of ``[T, h, w, 3]``, evenly spread and fitted into ``BOX``, side by side."""
    height, width = frames.shape[1:3]
    scale = min(BOX[0] / width, BOX[1] / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    chosen = ((np.arange(FRAMES) + 0.5) / FRAMES * len(frames)).astype(int)
    return np.concatenate([cv2.resize(frames[i], size, interpolation=cv2.INTER_AREA) for i in chosen], axis=1)


def waveform_path(audio: np.ndarray) -> str:
    """Lowest and highest sample of each of ``COLUMNS`` slices of ``[channels, n]``, as vertical strokes."""
    n = audio.shape[1]
    if n == 0:
        return ""
    edges = np.unique(np.linspace(0, n, min(COLUMNS, n) + 1).astype(int))[:-1]
    low = np.minimum.reduceat(audio.min(axis=0), edges).clip(-1, 1)
    high = np.maximum.reduceat(audio.max(axis=0), edges).clip(-1, 1)
    x = (np.arange(len(edges)) + 0.5) * COLUMNS / len(edges)
    top = WAVE_HEIGHT / 2 * (1 - high)
    bottom = np.maximum(WAVE_HEIGHT / 2 * (1 - low), top + 0.3)
    return "".join(f"M{a:.4g} {b:.3g}V{c:.3g}" for a, b, c in zip(x, top, bottom, strict=True))
