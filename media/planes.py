"""Pictures as the decoder left them, turned into colour or grey only when somebody looks."""

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
    """One picture a tick of the 25 fps grid; ticks that show the same picture hold the same object.

    Most clips are judged on grey pictures and on sound alone, and a conversion to RGB costs as much as decoding.

    Attributes:
        pictures: decoded frames of one size, planar YUV 4:2:0 or ``rgb24``, or uint8 RGB arrays ``[h, w, 3]``.
        orientation: how the coded pictures are shown; None for arrays, which are upright.
    """

    pictures: Sequence[av.VideoFrame | np.ndarray] = ()
    orientation: Orientation | None = None
    _reformatter: VideoReformatter = field(default_factory=VideoReformatter, repr=False)

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as shown; 0, 0 without pictures."""
        if not len(self.pictures):
            return 0, 0
        first = self.pictures[0]
        if isinstance(first, np.ndarray):
            return first.shape[1], first.shape[0]
        turned = self.orientation.transpose
        return (first.height, first.width) if turned else (first.width, first.height)

    def rgb(self) -> np.ndarray:
        """uint8 ``[T, h, w, 3]``, all pictures."""
        width, height = self.size
        frames = np.empty((len(self.pictures), height, width, 3), np.uint8)
        shown = None
        for tick, picture in enumerate(self.pictures):
            if picture is shown:
                frames[tick] = frames[tick - 1]
            else:
                frames[tick] = self._upright(picture)
            shown = picture
        return frames

    def grey(self, tick: int, size: tuple[int, int]) -> np.ndarray:
        """uint8 ``[h, w]``: luminance at a tick, area-averaged down to ``size`` (width, height)."""
        picture = self.pictures[tick]
        if isinstance(picture, np.ndarray) or picture.format.name not in PLANAR:
            upright = picture if isinstance(picture, np.ndarray) else self._upright(picture)
            return cv2.resize(cv2.cvtColor(upright, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)
        luma = self.orientation.apply(_rows(picture.planes[0], 1))
        small = cv2.resize(luma, size, interpolation=cv2.INTER_AREA)
        full = picture.format.name == "yuvj420p" or picture.color_range == ColorRange.JPEG
        return small if full else cv2.LUT(small, _FULL_RANGE)

    def _upright(self, picture: av.VideoFrame | np.ndarray) -> np.ndarray:
        return picture if isinstance(picture, np.ndarray) else to_rgb(self._reformatter, picture, self.orientation)


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
