from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from media.resample import resample
from perception.levels import (
    bandwidth,
    channel_imbalance,
    channel_powers,
    clipped_ratio,
    dc_offset,
    decibels,
    digital_silence_ratio,
    silence_ratio,
)

RATE = 44_100


def noise(seconds: float = 2.0, level: float = 0.1, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).normal(0, level, (channels, round(seconds * RATE))).astype(np.float32)


def imbalance(audio: np.ndarray) -> float:
    return channel_imbalance(channel_powers(audio))


def test_decibels_of_a_power():
    assert decibels(1.0) == 0 and decibels(1e-6) == pytest.approx(-60)
    assert decibels(0.0) is None


def test_silence_counts_frames_under_the_level_in_every_channel():
    audio = noise(4, channels=2)
    audio[:, : RATE * 3] = 0
    assert silence_ratio(audio, RATE, -60) == pytest.approx(0.75, abs=0.02)
    assert digital_silence_ratio(audio) == pytest.approx(0.75, abs=0.01)
    audio[:, : RATE * 3] = noise(3, 10 ** (-65 / 20), channels=2)
    assert silence_ratio(audio, RATE, -60) == pytest.approx(0.75, abs=0.02)
    assert digital_silence_ratio(audio) < 0.05
    assert silence_ratio(audio, RATE, -70) == 0
    one_channel_on = np.concatenate([noise(2), np.zeros((1, 2 * RATE), np.float32)])
    assert silence_ratio(one_channel_on, RATE, -60) == 0


def test_clipping_is_runs_at_full_scale():
    tone = np.sin(2 * np.pi * 220 * np.arange(RATE) / RATE)[None].astype(np.float32)
    assert clipped_ratio(0.9 * tone) == 0
    overdriven = np.clip(2 * tone, -1, 1)
    assert clipped_ratio(overdriven) == pytest.approx(2 / 3, abs=0.02)  # |sin| > 0.5
    lone_peaks = 0.5 * tone
    lone_peaks[:, ::100] = 1.0
    assert clipped_ratio(lone_peaks) == 0


@pytest.mark.parametrize(("through_hz", "low", "high"), [(8_000, 3_700, 4_900), (16_000, 7_600, 9_500)])
def test_bandwidth_sees_telephone_audio_inside_a_cd_rate_file(through_hz: int, low: float, high: float):
    narrow = resample(noise(3), RATE, through_hz)
    assert low < bandwidth(resample(narrow, through_hz, RATE), RATE, -60) < high


def test_bandwidth_of_full_band_audio_is_half_the_rate():
    assert bandwidth(noise(3), RATE, -60) > 0.98 * RATE / 2
    assert bandwidth(np.concatenate([0 * noise(3), noise(3)]), RATE, -60) > 0.98 * RATE / 2


def test_silence_and_a_click_have_no_bandwidth():
    assert bandwidth(np.zeros((1, RATE), np.float32), RATE, -60) is None
    assert bandwidth(noise(0.01), RATE, -60) is None


def test_offset_and_imbalance():
    audio = noise(2, channels=2) * np.float32([[1.0], [0.5]]) + np.float32([[0.0], [-0.03]])
    assert dc_offset(audio) == pytest.approx(0.03, abs=0.002)
    quieter = noise(2)
    assert imbalance(np.concatenate([quieter, quieter / 2])) == pytest.approx(6.02, abs=0.01)
    assert imbalance(np.concatenate([quieter, 0 * quieter])) > 90
    assert imbalance(quieter) == 0


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_imbalance_is_bounded_and_has_no_sides(first: float, second: float):
    found = channel_imbalance(np.array([first, second]))
    assert 0 <= found <= 120
    assert found == pytest.approx(channel_imbalance(np.array([second, first])), abs=1e-9)
