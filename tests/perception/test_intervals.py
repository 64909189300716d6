from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from perception.intervals import frame_times, join_intervals, mask_of, runs

masks = st.lists(st.booleans(), max_size=40)


def test_a_frame_is_inside_when_its_middle_is() -> None:
    assert mask_of([(0.03, 0.10), (0.15, 0.19)], frame_times(5)).tolist() == [False, True, False, False, True]
    assert not mask_of([], frame_times(3)).any()
    assert mask_of([(0.0, 9.0)], frame_times(3)).all()


def test_an_interval_holds_its_start_and_not_its_end() -> None:
    assert mask_of([(1.0, 2.0)], np.array([0.9, 1.0, 1.5, 2.0])).tolist() == [False, True, True, False]


@given(masks)
def test_runs_rebuild_the_mask(mask: list[bool]) -> None:
    rebuilt = np.zeros(len(mask), bool)
    found = runs(np.array(mask, bool))
    for start, stop in found:
        assert start < stop and not rebuilt[max(start - 1, 0) : stop].any()
        rebuilt[start:stop] = True
    assert rebuilt.tolist() == mask


@given(masks)
def test_the_mask_of_the_runs_is_the_mask(mask: list[bool]) -> None:
    intervals = [(start / 25, stop / 25) for start, stop in runs(np.array(mask, bool))]
    assert mask_of(intervals, frame_times(len(mask))).tolist() == mask


@given(masks, st.floats(0, 2))
def test_joined_intervals_cover_the_same_with_only_longer_gaps(mask: list[bool], gap: float) -> None:
    found = [(start / 10, stop / 10) for start, stop in runs(np.array(mask, bool))]
    joined = join_intervals(found, gap)
    assert all(any(a <= start and end <= b for a, b in joined) for start, end in found)
    assert all(right[0] - left[1] > gap for left, right in pairwise(joined))
    assert {start for start, _ in joined} <= {start for start, _ in found}
