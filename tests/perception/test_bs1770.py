from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.bs1770 import integrated_loudness, k_weighting, true_peak


def tone(level_db: float, seconds: float, rate: int = 48_000, hertz: float = 997.0, channels: int = 2) -> np.ndarray:
    wave = 10 ** (level_db / 20) * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    return np.repeat(wave[None], channels, axis=0).astype(np.float32)


def test_k_weighting_has_the_standards_coefficients_at_48_khz():
    shelf = [1.53512485958697, -2.69169618940638, 1.19839281085285, 1, -1.69065929318241, 0.73248077421585]
    high_pass = [1, -2, 1, 1, -1.99004745483398, 0.99007225036621]
    np.testing.assert_allclose(k_weighting(48_000), [shelf, high_pass], atol=1e-8)


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000, 96_000])
def test_a_reference_tone(rate: int):
    assert integrated_loudness(tone(-20, 5, rate), rate) == pytest.approx(-20.0, abs=0.06)
    assert integrated_loudness(tone(-20, 5, rate, channels=1), rate) == pytest.approx(-23.01, abs=0.06)


@pytest.mark.parametrize(
    "levels",
    [
        [(-23, 20)],
        [(-36, 10), (-23, 60), (-36, 10)],
        [(-72, 10), (-36, 10), (-23, 60), (-36, 10), (-72, 10)],
        [(-26, 20), (-20, 20.1), (-26, 20)],
    ],
)
def test_gating_as_in_ebu_tech_3341(levels: list[tuple[float, float]]):
    """The minimum requirements' signals 1, 3, 4 and 5, whose answer is -23.0 ± 0.1 LUFS."""
    signal = np.concatenate([tone(level, seconds, hertz=1000) for level, seconds in levels], axis=1)
    assert integrated_loudness(signal, 48_000) == pytest.approx(-23.0, abs=0.1)


def test_surround_weights_as_in_ebu_tech_3341():
    """Signal 6: -28 dB left and right, -24 dB centre, -30 dB at the sides; the low-frequency channel counts nothing."""
    levels = (-28, -28, -24, -3, -30, -30)
    signal = np.concatenate([tone(level, 20, hertz=1000, channels=1) for level in levels])
    assert integrated_loudness(signal, 48_000) == pytest.approx(-23.0, abs=0.1)


def test_no_loudness_where_none_is_defined():
    assert integrated_loudness(np.zeros((2, 48_000), np.float32), 48_000) is None
    assert integrated_loudness(tone(-80, 2), 48_000) is None
    assert integrated_loudness(tone(-20, 0.39), 48_000) is None
    assert integrated_loudness(np.zeros((1, 0), np.float32), 48_000) is None


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(-20, 20))
def test_gain_moves_loudness_by_as_much(seed: int, gain_db: float):
    noise = np.random.default_rng(seed).normal(0, 0.02, (1, 32_000)).astype(np.float32)
    louder = noise * np.float32(10 ** (gain_db / 20))
    assert integrated_loudness(louder, 16_000) == pytest.approx(integrated_loudness(noise, 16_000) + gain_db, abs=1e-3)


def test_true_peak_sees_between_the_samples():
    """A quarter-rate sine sampled 45° off its crests: samples at 0.707, crests at 1."""
    wave = np.sin(2 * np.pi * np.arange(4800) / 4 + np.pi / 4) * np.hanning(4800)
    assert np.abs(wave).max() == pytest.approx(0.707, abs=0.001)
    assert true_peak(wave[None].astype(np.float32)) == pytest.approx(1.0, abs=0.01)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 300), st.integers(1, 8))
def test_true_peak_is_at_least_the_sample_peak(seed: int, length: int, channels: int):
    noise = np.random.default_rng(seed).uniform(-1, 1, (channels, length)).astype(np.float32)
    assert true_peak(noise) >= np.abs(noise).max(initial=0)
