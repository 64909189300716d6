from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unitalking_data.buckets import Bucket, Buckets


def assign(buckets, *clips):
    """The bucket of each (duration, width, height)."""
    found, numbers = buckets.assign(*(np.array(column, float) for column in zip(*clips)))
    return [found[number] for number in numbers]


def test_a_clip_goes_to_the_longest_it_fills_and_the_nearest_shape():
    buckets = Buckets(durations_s=(2, 5), aspects=(9 / 16, 1, 16 / 9))
    assert assign(buckets, (5.0, 1280, 720), (4.9999, 720, 1280), (4.9, 720, 720), (60, 800, 720)) == [
        Bucket(5, 16 / 9),
        Bucket(5, 9 / 16),
        Bucket(2, 1),
        Bucket(5, 1),
    ]


def test_without_a_grid_there_is_one_bucket():
    assert assign(Buckets(), (1, 0, 0), (9, 64, 64)) == [Bucket(), Bucket()]


def test_only_buckets_with_clips_are_numbered():
    found, numbers = Buckets(durations_s=(1, 2, 3)).assign(np.array([3.5, 1.5, 3.0]), np.zeros(3), np.zeros(3))
    assert found == [Bucket(1), Bucket(3)]
    assert numbers.tolist() == [1, 0, 1]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.floats(2, 60), st.integers(1, 4000), st.integers(1, 4000)), min_size=1, max_size=30))
def test_the_chosen_shape_is_the_nearest_by_ratio(clips):
    aspects = (0.5, 1.0, 1.7)
    for bucket, (seconds, width, height) in zip(assign(Buckets((2, 4, 8), aspects), *clips), clips):
        distance = {aspect: abs(np.log(aspect * height / width)) for aspect in aspects}
        assert distance[bucket.aspect] <= min(distance.values()) + 1e-9
        assert bucket.duration_s <= seconds + 1e-3


def test_what_fits_no_bucket_is_an_error():
    with pytest.raises(ValueError, match=r"1 clips are shorter than the shortest bucket, 2 s .*lasts 1\.500 s"):
        assign(Buckets(durations_s=(2,)), (1.5, 1, 1), (3, 1, 1))
    with pytest.raises(ValueError, match="some have none"):
        assign(Buckets(aspects=(1,)), (1.5, 0, 0))
    with pytest.raises(ValueError, match="ascending"):
        Buckets(durations_s=(2, 1))
    with pytest.raises(ValueError, match="positive"):
        Buckets(aspects=(0, 1))
