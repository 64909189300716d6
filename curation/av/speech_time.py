"""Where speech is on the 25 fps grid that faces are tracked on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from media.clip import GRID_FPS

Interval = tuple[float, float]


def speech_frames(intervals: Sequence[Interval], count: int) -> np.ndarray:
    """bool ``[count]``: whether the middle of each 40 ms tick lies in one of ``intervals`` (seconds)."""
    middles = (np.arange(count) + 0.5) / GRID_FPS
    inside = np.zeros(count, bool)
    for start, end in intervals:
        inside |= (middles >= start) & (middles < end)
    return inside


def runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """``[start, stop)`` of each run of true values in a bool ``[n]``."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]
