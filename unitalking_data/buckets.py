"""Buckets: groups of clips that are cut to one length and one shape, so that a batch can stack them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Bucket:
    """What the clips of a bucket have in common.

    Attributes:
        duration_s: seconds that every clip lasts at least; None where the grid has no durations.
        aspect: width over height, of the grid's the nearest to every clip's own; None where the grid has no aspects.
    """

    duration_s: float | None = None
    aspect: float | None = None


@dataclass(frozen=True, slots=True)
class Buckets:
    """The grid of buckets.

    Args:
        durations_s: ascending lengths to which clips will be cut; a clip belongs to the longest that it fills.
        aspects: width over height of the shapes to which they will be cropped; a clip belongs to the nearest by ratio.
    """

    durations_s: Sequence[float] = ()
    aspects: Sequence[float] = ()

    def __post_init__(self) -> None:
        if list(self.durations_s) != sorted(set(self.durations_s)) or any(d <= 0 for d in self.durations_s):
            raise ValueError(f"bucket durations {list(self.durations_s)} must be positive and ascending")
        if list(self.aspects) != sorted(set(self.aspects)) or any(a <= 0 for a in self.aspects):
            raise ValueError(f"bucket aspects {list(self.aspects)} must be positive and ascending")

    def assign(
        self, durations_s: np.ndarray, widths: np.ndarray, heights: np.ndarray
    ) -> tuple[list[Bucket], np.ndarray]:
        """The buckets that have clips, and for each clip its bucket's number among them, int16 ``[n]``.

        Args:
            durations_s: seconds ``[n]``.
            widths, heights: pixels ``[n]``.

        Raises:
            ValueError: a clip is shorter than the shortest bucket, or its size is needed and unknown (0).
        """
        length: np.ndarray = np.zeros(len(durations_s), np.int32)
        if self.durations_s:
            # a clip of 4.9999 s is five seconds to the clock of its container
            length = np.searchsorted(np.asarray(self.durations_s) - 1e-3, durations_s, side="right") - 1
            if len(length) and length.min() < 0:
                raise ValueError(
                    f"{(length < 0).sum():,} clips are shorter than the shortest bucket, {self.durations_s[0]:g} s "
                    f"(the shortest lasts {durations_s.min():.3f} s): add a bucket for them"
                )
        shape: np.ndarray = np.zeros(len(durations_s), np.int32)
        if self.aspects:
            if np.any(widths <= 0) or np.any(heights <= 0):
                raise ValueError("buckets by aspect need every clip's width and height; some have none")
            middles = np.sqrt(np.asarray(self.aspects[1:]) * np.asarray(self.aspects[:-1]))
            shape = np.searchsorted(middles, widths / heights, side="right")
        durations: Sequence[float | None] = self.durations_s or (None,)
        aspects: Sequence[float | None] = self.aspects or (None,)
        grid = [Bucket(duration, aspect) for duration in durations for aspect in aspects]
        place = length * len(aspects) + shape
        there = np.bincount(place, minlength=len(grid)) > 0
        number = (np.cumsum(there) - 1).astype(np.int16)
        return [bucket for bucket, used in zip(grid, there) if used], number[place]
