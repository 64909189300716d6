"""How a coded frame is shown: rotated or mirrored by its display matrix, stretched to square pixels."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.sidedata.sidedata import Type
from av.video.reformatter import VideoReformatter

MAX_PIXEL_ASPECT = 4
_THUMBNAIL = 16


@dataclass(frozen=True, slots=True)
class Orientation:
    """One of the eight ways to lay down a frame: swap the axes, then mirror them.

    ``width`` and ``height`` are the coded size in square pixels, before the axes are swapped.
    """

    width: int
    height: int
    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    @classmethod
    def of(cls, frame: av.VideoFrame, pixel_aspect: Fraction | None) -> Orientation:
        """Of a decoded frame; an aspect outside 1/4…4 is taken for damage and ignored."""
        width = frame.width
        if pixel_aspect and Fraction(1, MAX_PIXEL_ASPECT) <= pixel_aspect <= MAX_PIXEL_ASPECT:
            width = max(1, round(width * pixel_aspect))
        # Looking at a frame's side data ties it into a reference cycle (PyAV 18), and one frame that waits for the
        # garbage collector holds all buffers of its decoder, some 100 MiB. A thumbnail carries the same matrix.
        thumbnail = VideoReformatter().reformat(frame, _THUMBNAIL, _THUMBNAIL)
        side = thumbnail.side_data.get(Type.DISPLAYMATRIX)
        if side is None:
            return cls(width, frame.height)
        (a, b), (c, d) = np.frombuffer(bytes(side), np.int32)[:9].reshape(3, 3)[:2, :2].tolist()
        if abs(a) >= abs(b):
            return cls(width, frame.height, False, a < 0, d < 0)
        return cls(width, frame.height, True, c < 0, b < 0)

    @property
    def shown(self) -> tuple[int, int]:
        """Width and height as displayed."""
        return (self.height, self.width) if self.transpose else (self.width, self.height)

    @property
    def rotation(self) -> int:
        """Clockwise degrees, of 0, 90, 180, 270, that set the coded frame upright; a mirror is not a rotation."""
        if self.transpose:
            return 90 if self.flip_x else 270 if self.flip_y else 0
        return 180 if self.flip_x and self.flip_y else 0

    def fitted(self, side: int) -> tuple[int, int]:
        """Coded width and height, scaled down where needed so that the longer is ``side``."""
        scale = min(1.0, side / max(self.width, self.height))
        return max(1, round(self.width * scale)), max(1, round(self.height * scale))

    def apply(self, image: np.ndarray) -> np.ndarray:
        """``[h, w]`` or ``[h, w, 3]`` as coded, to a view of it as displayed."""
        if self.transpose:
            image = image.swapaxes(0, 1)
        return image[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]
