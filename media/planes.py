"""Frames as the decoder left them, converted to RGB or grey only when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from media.geometry import Orientation

PLANAR = frozenset({"yuv420p", "yuvj420p"})

# Luma of broadcast range, 16…235, spread over 0…255.
_FULL_RANGE = np.clip(np.round((np.arange(256) - 16) * 255 / 219), 0, 255).astype(np.uint8)


@dataclass(slots=True)
class Planes:
    """One frame a tick of the 25 fps grid; ticks that show the same frame hold the same object.

    Most clips are judged on grey frames and on audio alone, and a conversion to RGB costs as much as decoding.

    Attributes:
        frames: decoded frames of one size, planar YUV 4:2:0 or ``rgb24``, or uint8 RGB arrays ``[h, w, 3]``.
        orientation: how the coded frames are shown; None for arrays, which are upright.
    """

    frames: Sequence[av.VideoFrame | np.ndarray] = ()
    orientation: Orientation | None = None
    _reformatter: VideoReformatter = field(default_factory=VideoReformatter, repr=False)

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as shown; 0, 0 without frames."""
        if not len(self.frames):
            return 0, 0
        first = self.frames[0]
        if isinstance(first, np.ndarray):
            return first.shape[1], first.shape[0]
        turned = self.orientation.transpose
        return (first.height, first.width) if turned else (first.width, first.height)

    def rgb(self) -> np.ndarray:
        """uint8 ``[T, h, w, 3]``, all frames."""
        width, height = self.size
        rgb = np.empty((len(self.frames), height, width, 3), np.uint8)
        shown = None
        for tick, frame in enumerate(self.frames):
            if frame is shown:
                rgb[tick] = rgb[tick - 1]
            else:
                rgb[tick] = self._upright(frame)
            shown = frame
        return rgb

    def grey(self, tick: int, size: tuple[int, int]) -> np.ndarray:
        """uint8 ``[h, w]``: luminance at a tick, area-averaged down to ``size`` (width, height)."""
        frame = self.frames[tick]
        if isinstance(frame, np.ndarray) or frame.format.name not in PLANAR:
            upright = frame if isinstance(frame, np.ndarray) else self._upright(frame)
            return cv2.resize(cv2.cvtColor(upright, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)
        luma = self.orientation.apply(_rows(frame.planes[0], 1))
        small = cv2.resize(luma, size, interpolation=cv2.INTER_AREA)
        full = frame.format.name == "yuvj420p" or frame.color_range == ColorRange.JPEG
        return small if full else cv2.LUT(small, _FULL_RANGE)

    def _upright(self, frame: av.VideoFrame | np.ndarray) -> np.ndarray:
        return frame if isinstance(frame, np.ndarray) else to_rgb(self._reformatter, frame, self.orientation)


def to_rgb(
    reformatter: VideoReformatter,
    frame: av.VideoFrame,
    orientation: Orientation,
    size: tuple[int, int] | None = None,
) -> np.ndarray:
    """uint8 RGB ``[h, w, 3]`` of a frame as displayed, scaled to coded ``size``; a view of the converter's buffer."""
    width, height = size or (frame.width, frame.height)
    rgb = reformatter.reformat(frame, width, height, format="rgb24", interpolation=Interpolation.BILINEAR, threads=1)
    return orientation.apply(_rows(rgb.planes[0], 3))


def _rows(plane: av.VideoPlane, channels: int) -> np.ndarray:
    """uint8 ``[h, w]`` or ``[h, w, channels]`` view of a plane without its padding."""
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : channels * plane.width]
    return rows if channels == 1 else rows.reshape(plane.height, plane.width, channels)
