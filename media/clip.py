"""A clip decoded once: everything the CPU scorers share.

Times are seconds from the clip's start on the presentation clock, never frame counters, so variable
frame rates and streams that start late are placed where a player would place them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from media.planes import Planes

GRID_FPS = 25.0
SPEECH_RATE = 16_000

T = TypeVar("T")


class MediaError(Exception):
    """The file is at fault (empty, truncated, no video stream…). The message names what and why."""


@dataclass(slots=True)
class ClipMedia:
    """Decoded media of one clip.

    Attributes:
        duration_s: length of the clip in seconds.
        width, height: displayed size of the source in pixels, rotation and pixel aspect applied; 0 where no
            frames were asked for.
        fps: average source frame rate within the clip, from timestamps.
        planes: frames on a 25 fps grid (frame *k* is what a player shows at ``k / 25`` s), long side at most the
            decode's ``frame_side``, not yet converted; none when not asked for. :attr:`frames` are the same in RGB.
        frame_index: int64 ``[T]``, which decoded source frame stands at each tick (repeats where the
            source is slower than 25 fps, skips where it is faster).
        stills: uint8 RGB ``[H, W, 3]`` at full size, evenly spread over the clip.
        still_times_s: float64 ``[len(stills)]``.
        audio: float32 ``[channels, n]`` in −1…1 at the source's rate, sample 0 at the clip's start
            (silence is put where the stream has not begun); ``[0, 0]`` without an audio stream.
        audio_rate: Hz, 0 without an audio stream.
        speech: float32 ``[n]`` mono at 16 kHz, the same alignment; ``[0]`` without an audio stream.
        audio_delay_s: how much later than the video the audio stream begins at the source's start.
        video_bytes: bytes of the video packets that fall in the clip.
        bytes_read: bytes read from storage for this clip.
        decoded_frames: video frames that the decoder returned.
        decode_seconds: wall time of the decode pass.
    """

    duration_s: float
    width: int = 0
    height: int = 0
    fps: float = 0.0
    planes: Planes = field(default_factory=Planes)
    frame_index: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    stills: list[np.ndarray] = field(default_factory=list)
    still_times_s: np.ndarray = field(default_factory=lambda: np.zeros(0))
    audio: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    audio_rate: int = 0
    speech: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    audio_delay_s: float = 0.0
    video_bytes: int = 0
    bytes_read: int = 0
    decoded_frames: int = 0
    decode_seconds: float = 0.0
    _derived: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def frames(self) -> np.ndarray:
        """uint8 RGB ``[T, h, w, 3]``: :attr:`planes` converted, once and at the first look."""
        return self.derive("frames", lambda media: media.planes.rgb())

    @property
    def has_audio(self) -> bool:
        return self.audio_rate > 0

    def derive(self, name: str, compute: Callable[[ClipMedia], T]) -> T:
        """What ``compute`` makes of this media, computed once and shared between stages under ``name``."""
        if name not in self._derived:
            self._derived[name] = compute(self)
        return self._derived[name]
