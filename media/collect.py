"""Where decoded media goes: video frames to the ticks at which they are shown, samples to their place in time."""

from __future__ import annotations

import math
from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from media.clip import GRID_FPS
from media.geometry import Orientation
from media.planes import PLANAR, to_rgb

# Matroska rounds timestamps to 1 ms, and a clip's bounds may have passed through float32.
TOLERANCE_S = 1e-3
# Share of a clip that must be decodable.
COMPLETE = 0.9
# Below this a difference between sample count and timestamps is rounding, not a gap.
AUDIO_JITTER_S = 0.02

# PyAV 18 counts the planes of a frame by looking for an end mark that FFmpeg does not set from the eighth on.
PLANE_LIMIT = 8

FULL_SIZE = 1 << 30

_INTEGER_SCALE = {"u8": 2.0**7, "s16": 2.0**15, "s32": 2.0**31, "s64": 2.0**63}


class FrameCollector:
    """Frames on the 25 fps grid and stills, scaled only where a tick shows them.

    Frames come in decoding order with their time from the clip's start. Each is shown until the next; of two
    with one timestamp the later stands, and one that comes too late (time runs backwards) is not shown.
    """

    def __init__(
        self,
        duration_s: float,
        *,
        grid: bool,
        frame_side: int,
        stills: int,
        frame_s: float,
        tick_s: float,
        pixel_aspect: Fraction | None,
    ) -> None:
        self.duration_s = duration_s
        self.decoded = 0
        self.first_s = math.inf
        self.reached_s = 0.0
        self.orientation: Orientation | None = None
        self.on_grid: list[av.VideoFrame] = []
        self.stills: list[np.ndarray] = []
        ticks = math.ceil(round(duration_s * GRID_FPS, 6)) if grid else 0
        self._ticks = np.arange(ticks) / GRID_FPS
        self.still_times_s = (np.arange(stills) + 0.5) / max(stills, 1) * duration_s
        self.frame_index = np.zeros(ticks, np.int64)
        self._tick = 0
        self._side = frame_side
        self._frame_s, self._tick_s = frame_s, tick_s
        self._pixel_aspect = pixel_aspect
        self._shown: av.VideoFrame | None = None
        self._shown_s, self._shown_index = -math.inf, 0
        self._beyond = 0
        self._scale, self._full = VideoReformatter(), VideoReformatter()

    @property
    def done(self) -> bool:
        """Two frames lay beyond the end: one alone may be a damaged timestamp."""
        return self._beyond >= 2

    def add(self, frame: av.VideoFrame, time_s: float) -> None:
        self.decoded += 1
        if self.orientation is None:
            self.orientation = Orientation.of(frame, self._pixel_aspect)
        if time_s >= self.duration_s - TOLERANCE_S:
            self._beyond += 1
            if self.done:
                self._show_until(math.inf)
                self.reached_s = self.duration_s
            return
        if time_s < self._shown_s:
            return
        if time_s > self._shown_s:
            self._show_until(time_s)
        self._shown, self._shown_s, self._shown_index = frame, time_s, self.decoded - 1
        self.first_s = min(self.first_s, time_s)
        self.reached_s = max(self.reached_s, time_s + (frame.duration * self._tick_s or self._frame_s))

    def finish(self) -> None:
        """The last frame stays until the end."""
        self._show_until(math.inf)
        if self._tick:
            self.frame_index -= self.frame_index[0]

    def _show_until(self, time_s: float) -> None:
        """The frame on screen takes all open ticks before ``time_s``."""
        if self._shown is None:
            return
        end = int(np.searchsorted(self._ticks, time_s - TOLERANCE_S))
        if end > self._tick:
            self.on_grid += [self._scaled()] * (end - self._tick)
            self.frame_index[self._tick : end] = self._shown_index
            self._tick = end
        due = int(np.searchsorted(self.still_times_s, time_s - TOLERANCE_S))
        if due > len(self.stills):
            size = self.orientation.fitted(FULL_SIZE)
            still = np.ascontiguousarray(to_rgb(self._full, self._shown, self.orientation, size))
            self.stills += [still] * (due - len(self.stills))

    def _scaled(self) -> av.VideoFrame:
        """The frame on screen at grid size: its planes as they are where they are YUV 4:2:0, else RGB.

        Scaling the planes takes half the time of scaling RGB, and many clips need no colour at all.
        """
        width, height = self.orientation.fitted(self._side)
        frame = self._shown
        if frame.format.name not in PLANAR:
            return self._scale.reformat(frame, width, height, "rgb24", interpolation=Interpolation.BILINEAR, threads=1)
        if (width, height) == (frame.width, frame.height):
            return frame
        shrinks = width * height < frame.width * frame.height
        how = Interpolation.AREA if shrinks else Interpolation.BILINEAR
        return self._scale.reformat(frame, width, height, interpolation=how, threads=1)


class AudioCollector:
    """Audio frames on one buffer whose sample 0 is the clip's start; where nothing was heard there is silence.

    A stream that changes its rate or layout is converted to those it had first.
    """

    def __init__(self, duration_s: float, rate: int, channels: int, layout: str) -> None:
        self.duration_s = duration_s
        self.done = False
        self._heard = False
        self._resampler: av.AudioResampler | None = None
        self._resampled: tuple[int, str, str] | None = None
        self._begin(rate, channels, layout)

    def _begin(self, rate: int, channels: int, layout: str) -> None:
        self.rate, self.layout = rate, layout
        self.audio = np.zeros((channels, round(self.duration_s * rate)), np.float32)
        self._next: int | None = None

    def add(self, frame: av.AudioFrame, time_s: float | None) -> None:
        """``time_s`` from the clip's start; None where the frame has no timestamp and follows the last."""
        if not self._heard:  # the header may be wrong about rate and layout, as with HE-AAC
            self._heard = True
            self._begin(frame.sample_rate, frame.layout.nb_channels, frame.layout.name)
        at = None if time_s is None else round(time_s * self.rate)
        if self._next is None or (at is not None and abs(at - self._next) > AUDIO_JITTER_S * self.rate):
            self._next = at or 0
        for part in self._alike(frame):
            self._place(to_float(part))
        self.done = self._next >= self.audio.shape[1]

    def _alike(self, frame: av.AudioFrame) -> list[av.AudioFrame]:
        """The frame in the first one's rate and layout, readable as an array."""
        channels = frame.layout.nb_channels
        alike = frame.sample_rate == self.rate and channels == len(self.audio)
        if alike and not (frame.format.is_planar and channels >= PLANE_LIMIT):
            return [frame]
        source = (frame.sample_rate, frame.layout.name, frame.format.name)
        if self._resampled != source:
            self._resampler = av.AudioResampler(format="flt", layout=self.layout, rate=self.rate)
            self._resampled = source
        return self._resampler.resample(frame)

    def _place(self, samples: np.ndarray) -> None:
        start, self._next = self._next, self._next + samples.shape[1]
        low, high = max(start, 0), min(self._next, self.audio.shape[1])
        if low < high:
            self.audio[:, low:high] = samples[:, low - start : high - start]


def to_float(frame: av.AudioFrame) -> np.ndarray:
    """float32 ``[channels, n]`` in −1…1 of a frame in any sample format."""
    array = frame.to_ndarray()
    if not frame.format.is_planar:
        array = array.reshape(-1, frame.layout.nb_channels).T
    kind = frame.format.name.removesuffix("p")
    array = array.astype(np.float32)
    if kind == "u8":
        array -= 128
    return array / np.float32(_INTEGER_SCALE[kind]) if kind in _INTEGER_SCALE else array
