"""Intervals of time and masks over a grid of moments: each made from the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from media.clip import GRID_FPS

Interval = tuple[float, float]


def frame_times(count: int) -> np.ndarray:
    """float64 ``[count]``: the middle of each frame of the 25 fps grid, in seconds from its start."""
    return (np.arange(count) + 0.5) / GRID_FPS


def mask_of(intervals: Sequence[Interval], times: np.ndarray) -> np.ndarray:
    """bool ``[n]``: whether each of ``times`` ``[n]`` lies in one of ``intervals`` (both in seconds, ends excluded)."""
    inside = np.zeros(len(times), bool)
    for start, end in intervals:
        inside |= (times >= start) & (times < end)
    return inside


def runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """``[start, stop)`` of each run of true values in a bool ``[n]``."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def join_intervals(intervals: Sequence[Interval], max_gap_s: float) -> list[Interval]:
    """Ascending intervals with pauses of up to ``max_gap_s`` between neighbours closed."""
    joined: list[Interval] = []
    for start, end in intervals:
        if joined and start - joined[-1][1] <= max_gap_s:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined
