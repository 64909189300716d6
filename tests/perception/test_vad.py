from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.intervals import Interval
from perception.vad import WINDOW, WINDOW_S, find_intervals, load_detector

probabilities = st.lists(st.sampled_from([0.0, 0.2, 0.4, 0.6, 1.0]), max_size=200)


def steps(*runs: tuple[float, int]) -> list[float]:
    return [p for p, count in runs for _ in range(count)]


def test_hysteresis_holds_speech_over_doubtful_windows():
    found = find_intervals(steps((0, 10), (0.9, 10), (0.4, 20), (0.9, 10), (0, 20)), 70 * WINDOW_S)
    assert found == [pytest.approx((10 * WINDOW_S - 0.03, 50 * WINDOW_S + 0.03))]


def test_a_doubtful_stretch_alone_is_no_speech():
    assert find_intervals(steps((0, 10), (0.45, 40), (0, 10)), 60 * WINDOW_S) == []


def test_short_pauses_close_and_longer_ones_part():
    short = find_intervals(steps((0.9, 20), (0, 3), (0.9, 20), (0, 20)), 63 * WINDOW_S)
    assert len(short) == 1
    longer = find_intervals(steps((0.9, 20), (0, 6), (0.9, 20), (0, 20)), 66 * WINDOW_S)
    assert longer == [
        pytest.approx((0, 20 * WINDOW_S + 0.03)),
        pytest.approx((26 * WINDOW_S - 0.03, 46 * WINDOW_S + 0.03)),
    ]


def test_bursts_are_dropped_and_speech_may_run_to_the_end():
    assert find_intervals(steps((0, 5), (1, 7), (0, 30)), 42 * WINDOW_S) == []
    assert find_intervals(steps((0, 5), (1, 20)), 0.78) == [pytest.approx((5 * WINDOW_S - 0.03, 0.78))]


@given(probabilities)
def test_intervals_are_ordered_disjoint_and_inside_the_clip(values: list[float]):
    duration = len(values) * WINDOW_S
    found = find_intervals(values, duration)
    assert all(0 <= start < end <= duration and end - start > 0.25 for start, end in found)
    assert all(left[1] <= right[0] for left, right in pairwise(found))


def test_real_speech_is_found_and_silence_and_noise_are_not(
    weights: Callable[..., dict[str, Path]], interview_speech: np.ndarray
):
    detector = load_detector(weights("silero_vad")["silero_vad"])

    def intervals(speech: np.ndarray) -> list[Interval]:
        return find_intervals(detector.probabilities(speech.astype(np.float32)), len(speech) / 16_000)

    speech = interview_speech[: 5 * 16_000 + 100]
    assert detector.probabilities(speech).shape == (-(-len(speech) // WINDOW),)
    assert 0.5 < sum(end - start for start, end in intervals(speech)) / (len(speech) / 16_000) <= 1
    assert intervals(np.zeros(32_000)) == []
    assert intervals(np.random.default_rng(0).normal(0, 0.1, 48_000)) == []
    assert intervals(np.zeros(0)) == []


def test_a_detector_is_loaded_once(weights: Callable[..., dict[str, Path]]):
    path = weights("silero_vad")["silero_vad"]
    assert load_detector(path) is load_detector(path)
