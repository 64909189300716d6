from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.audio.loudness import Loudness, LoudnessConfig
from engine.stage import Value
from media.clip import ClipMedia

from .conftest import opened

RATE = 44_100


def measure(audio: np.ndarray, rate: int = RATE, config: LoudnessConfig | None = None) -> dict:
    media = ClipMedia(audio.shape[1] / max(rate, 1), audio=audio.astype(np.float32), audio_rate=rate)
    (outcome,) = Loudness(config).score([opened(media)])
    assert isinstance(outcome, Value)
    pa.Table.from_pylist([dict(outcome.values)], schema=Loudness.values)
    assert set(outcome.values) == set(Loudness.values.names)
    return dict(outcome.values)


def noise(seconds: float = 2.0, level: float = 0.1, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).normal(0, level, (channels, round(seconds * RATE)))


@pytest.mark.parametrize(("audio", "rate"), [(np.zeros((0, 0)), 0), (np.zeros((2, 0)), RATE)])
def test_no_stream_and_an_empty_stream_are_said_to_have_no_audio(audio: np.ndarray, rate: int):
    values = measure(audio, rate)
    assert values.pop("has_audio") is False
    assert set(values.values()) == {None}


def test_digital_silence_is_audio_that_is_silent():
    values = measure(np.zeros((2, 2 * RATE)))
    assert values["has_audio"] is True
    assert values["digital_silence_ratio"] == values["silence_ratio"] == 1
    for absent in ("mean_dbfs", "integrated_lufs", "true_peak_dbfs", "bandwidth_hz"):
        assert values[absent] is None


def test_the_level_of_silence_is_a_setting():
    audio = noise(4, channels=2)
    audio[:, : RATE * 3] = noise(3, 10 ** (-65 / 20), channels=2)
    quiet = measure(audio)
    assert quiet["silence_ratio"] == pytest.approx(0.75, abs=0.02)
    assert quiet["digital_silence_ratio"] < 0.05
    assert measure(audio, config=LoudnessConfig(silence_dbfs=-70))["silence_ratio"] == 0


def test_levels_of_a_known_tone():
    tone = 0.1 * np.sin(2 * np.pi * 997 * np.arange(3 * RATE) / RATE)
    values = measure(np.stack([tone, tone]))
    assert values["mean_dbfs"] == pytest.approx(-23.01, abs=0.01)
    assert values["integrated_lufs"] == pytest.approx(-20.0, abs=0.1)
    assert values["true_peak_dbfs"] == pytest.approx(-20.0, abs=0.05)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(1, 9000), st.sampled_from([8000, 22_050, 48_000]))
def test_any_audio_gives_values_in_range(seed: int, channels: int, length: int, rate: int):
    generator = np.random.default_rng(seed)
    values = measure(generator.uniform(-1, 1, (channels, length)) * generator.choice([1, 1e-3, 1e-6]), rate)
    for share in ("digital_silence_ratio", "silence_ratio", "clipped_ratio", "dc_offset"):
        assert 0 <= values[share] <= 1
    assert values["bandwidth_hz"] is None or 0 <= values["bandwidth_hz"] <= rate / 2
    assert 0 <= values["channel_imbalance_db"] <= 120
