"""How much successive frames of a video differ, for finding where shots change.

Changes are mean absolute differences of 8-bit luma and chroma over small frames, 0 to 255.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

SLOW_LAG = 12  # frames over which a dissolve or a fade shows
NEIGHBOURS = 4  # frames on either side that a peak is compared with
_LASTING = (2, 3)  # frames before and after that differ where a change stays
_FLOOR = 0.3  # of the neighbours' change, so that noise in a still video is no peak
CONTEXT = max(SLOW_LAG // 2, NEIGHBOURS + 1, *_LASTING)  # frames that must be known on either side


class FrameChanges(NamedTuple):
    """What changes around each of *n* frames, float ``[n]`` each.

    Attributes:
        fast: from the frame to the next.
        ratio: ``fast`` as a multiple of the changes around it.
        slow: over ``SLOW_LAG`` frames around the frame.
        lasting: from two frames before to three after it: small after a flash, which goes away again.
    """

    fast: np.ndarray
    ratio: np.ndarray
    slow: np.ndarray
    lasting: np.ndarray


def frame_changes(frames: np.ndarray, context: int) -> FrameChanges:
    """The changes of the central *n* frames.

    Args:
        frames: uint8 RGB ``[context + n + context, h, w, 3]``, small.
        context: :data:`CONTEXT` or more.
    """
    count, width = len(frames) - 2 * context, frames.shape[2]
    small = cv2.cvtColor(frames.reshape(-1, width, 3), cv2.COLOR_RGB2YCrCb).reshape(frames.shape).astype(np.int16)

    def between(lag_back: int, lag_on: int) -> np.ndarray:
        before, after = small[context - lag_back :], small[context + lag_on :]
        return np.abs(after[:count] - before[:count]).mean((1, 2, 3))

    around = np.stack([between(-lag, lag + 1) for lag in range(-NEIGHBOURS, NEIGHBOURS + 1) if lag])
    fast = between(0, 1)
    half = SLOW_LAG // 2
    return FrameChanges(fast, fast / (np.median(around, axis=0) + _FLOOR), between(half, half), between(*_LASTING))
