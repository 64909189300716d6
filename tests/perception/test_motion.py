from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.motion import Comparer, home_share, spread


@pytest.fixture(scope="module")
def small(grey: np.ndarray) -> np.ndarray:
    """uint8 [120, 160]: a photograph."""
    return cv2.resize(grey, (160, 120), interpolation=cv2.INTER_AREA)


def test_equal_frames_do_not_differ(small: np.ndarray) -> None:
    change = Comparer().compare(small, small)
    assert not change.changed.any() and not change.residual.any()
    assert (change.energy, change.shift) == (0, 0)


def test_a_motion_of_the_whole_leaves_little_behind(small: np.ndarray) -> None:
    moved = cv2.warpAffine(small, np.float32([[1, 0, 3], [0, 1, 0]]), (160, 120), borderMode=cv2.BORDER_REPLICATE)
    change = Comparer().compare(small, moved)
    assert change.changed.mean() > 0.2 and change.residual.mean() < 0.02
    assert change.shift == pytest.approx(3, abs=0.5)


def test_what_moves_on_its_own_stays(small: np.ndarray) -> None:
    drawn = cv2.circle(small.copy(), (40, 90), 8, 255 if small[90, 40] < 128 else 0, -1)
    change = Comparer().compare(small, drawn)
    places = np.argwhere(change.residual)
    assert 100 < len(places) < 500
    assert np.abs(places.mean(axis=0) - (90, 40)).max() < 3


def test_the_spread_of_an_even_density_is_one() -> None:
    found = spread(np.ones((90, 160)))
    assert (found.x, found.y, found.deviation) == pytest.approx((0.5, 0.5, 1.0), abs=1e-3)


def test_the_spread_of_one_place_is_its_place() -> None:
    density = np.zeros((10, 20))
    density[9, 0] = 0.3
    found = spread(density)
    assert (found.x, found.y, found.deviation) == pytest.approx((0.025, 0.95, 0.0))
    assert spread(np.zeros((10, 20))) is None


@given(st.integers(0, 2**32 - 1))
def test_a_spread_lies_within_the_frame(seed: int) -> None:
    found = spread(np.random.default_rng(seed).uniform(0, 1, (7, 9)) ** 8)
    assert 0 <= found.x <= 1 and 0 <= found.y <= 1 and 0 <= found.deviation <= 1.75


def test_home_is_the_usual_luminance_of_a_place() -> None:
    frames = [np.full((2, 2), 100, np.uint8) for _ in range(4)]
    frames[3][0, 0] = 180
    frames[2][0, 1] = 102
    places = np.array([[True, True], [False, False]])
    assert home_share(frames, places, within=3.0) == pytest.approx(7 / 8)
    assert home_share(frames, places, within=1.0) == pytest.approx(6 / 8)
    assert home_share(frames, np.zeros((2, 2), bool), within=3.0) is None
