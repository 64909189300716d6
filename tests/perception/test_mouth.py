from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from perception.mouth import band_level, best_correlation, lip_gap, measure_mouth


def face(opening: np.ndarray, size: float) -> np.ndarray:
    """Landmarks of a face ``size`` pixels between the eyes, whose lips are ``opening`` sizes high."""
    points = np.zeros((len(opening), 468, 3))
    points[:, 33, 0], points[:, 263, 0] = -0.5, 0.5
    points[:, 2, 1], points[:, 0, 1] = 0.5, 0.7
    points[:, 17, 1], points[:, 152, 1] = 0.7 + opening, 1.2 + opening
    return size * points


def test_a_mouth_is_measured_in_face_scales() -> None:
    opening = 0.2 + 0.1 * np.sin(2 * np.pi * np.arange(50) / 8)
    small, large = (measure_mouth(face(opening, size)) for size in (40, 400))
    # Eyes 1, nose 0.5: the scale is their mean.
    np.testing.assert_allclose(small.opening, opening / 0.75)
    np.testing.assert_allclose(small.motion, large.motion)
    np.testing.assert_allclose(small.motion[5:-5], 0.2 / 0.75, rtol=0.01)
    assert small.jitter == 0


def test_the_gap_of_the_lips_is_a_share_of_the_face() -> None:
    points = np.zeros((2, 468, 3))
    points[:, 14, 1], points[:, 152, 1] = (0.0, 0.3), 3.0
    np.testing.assert_allclose(lip_gap(points), [0, 0.1])
    np.testing.assert_allclose(lip_gap(50 * points), [0, 0.1])


@pytest.mark.parametrize("late", [-5, -2, 0, 3, 5])
def test_the_lag_of_the_audio_is_found(late: int) -> None:
    series = gaussian_filter1d(np.random.default_rng(3).standard_normal(220), 2)
    jaw, level = series[10:210], series[10 - late : 210 - late]
    correlation, lag = best_correlation(jaw, level + np.linspace(0, 5, 200))
    assert lag == late and correlation > 0.9


def test_what_does_not_change_has_no_correlation() -> None:
    assert best_correlation(np.ones(60), np.random.default_rng(0).standard_normal(60)) == (0.0, 0)
    assert best_correlation(np.zeros(10), np.zeros(10)) == (0.0, 0)


@pytest.mark.parametrize("hertz, heard", [(300, False), (1500, True), (5000, False)])
def test_only_the_band_is_heard(hertz: int, heard: bool) -> None:
    time = np.arange(16_000) / 16_000
    tone = (0.3 * np.sin(2 * np.pi * hertz * time) * (time >= 0.48)).astype(np.float32)
    level = band_level(tone, 25)
    assert level.shape == (25,)
    rise = level[14:].mean() - level[:11].mean()
    assert (rise > 5) == heard
    assert level[:11].max() < level[14:].min() or not heard


def test_audio_shorter_than_the_frames_is_padded() -> None:
    assert band_level(np.zeros(1000, np.float32), 25).shape == (25,)
    assert band_level(np.zeros(0, np.float32), 10).shape == (10,)
