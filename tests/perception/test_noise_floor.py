from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.noise_floor import (
    frame_powers,
    pause_floor,
    pause_frames,
    ratio_db,
    ratio_over_time,
    spectral_floor,
    speech_frames,
    speech_snr_db,
)

SPEECH = [(1.0, 3.0), (4.0, 6.0)]


def voice(seconds: float = 7.0) -> np.ndarray:
    """A harmonic tone whose pitch glides, on in SPEECH only: like speech it leaves every frequency free at times."""
    time = np.arange(round(seconds * 16_000)) / 16_000
    phase = 2 * np.pi * np.cumsum(180 + 60 * np.sin(2 * np.pi * 0.9 * time)) / 16_000
    wave = sum(np.sin(k * phase) / k for k in range(1, 12))
    return wave * sum((time >= start) & (time < end) for start, end in SPEECH)


def mixed(snr_db: float, seed: int = 0) -> np.ndarray:
    clean = voice()
    noise = np.random.default_rng(seed).normal(size=len(clean))
    spoken = speech_frames(SPEECH, len(clean) // 512)
    gain = frame_powers(clean).sum(1)[spoken].mean() / frame_powers(noise).sum(1).mean()
    return 0.05 * (clean + noise * np.sqrt(gain / 10 ** (snr_db / 10)))


def pauses(speech: np.ndarray) -> np.ndarray:
    count = len(speech) // 512
    return pause_frames(SPEECH, speech_frames(SPEECH, count).astype(float), count)


def test_frame_power_is_the_mean_square():
    noise = np.random.default_rng(0).normal(0, 0.1, 64_000)
    assert frame_powers(noise).sum(1).mean() == pytest.approx(0.01, rel=0.03)
    rumble = np.sin(2 * np.pi * 30 * np.arange(64_000) / 16_000)
    assert frame_powers(rumble).sum(1).mean() < 0.01


@pytest.mark.parametrize("snr_db", [0, 5, 10, 20, 30])
def test_the_pauses_give_the_mixed_ratio(snr_db: float):
    speech = mixed(snr_db)
    powers = frame_powers(speech)
    level = powers[speech_frames(SPEECH, len(powers))].sum(1).mean()
    assert ratio_db(level, pause_floor(powers, pauses(speech))) == pytest.approx(snr_db, abs=0.6)


def test_the_ratio_of_speech_rests_on_pauses_where_there_are_any():
    speech = mixed(10)
    probabilities = speech_frames(SPEECH, len(speech) // 512).astype(float)
    powers = frame_powers(speech)
    level = powers[speech_frames(SPEECH, len(powers))].sum(1).mean()
    found = speech_snr_db(speech, SPEECH, probabilities)
    assert found == ratio_db(level, pause_floor(powers, pauses(speech))) == pytest.approx(10, abs=0.6)
    without = speech_snr_db(speech, SPEECH, np.ones_like(probabilities))
    assert without == ratio_db(level, spectral_floor(powers)) != found
    assert speech_snr_db(speech, [], probabilities) is None
    assert speech_snr_db(np.zeros(2048, np.float32), [(0.0, 0.1)], np.ones(4)) is None


def test_without_pauses_the_spectrum_gives_it_within_a_few_decibels():
    for snr_db in (0, 5, 10):
        powers = frame_powers(mixed(snr_db))
        spoken = speech_frames(SPEECH, len(powers))
        alone = powers[spoken]
        estimate = ratio_db(alone.sum(1).mean(), spectral_floor(alone))
        assert snr_db - 5 < estimate < snr_db + 1


def test_digital_silence_is_no_noise_floor():
    speech = mixed(10)
    spoken = speech_frames(SPEECH, len(speech) // 512).repeat(512)
    gated = speech[: len(spoken)] * spoken
    powers = frame_powers(gated)
    assert pause_floor(powers, pauses(gated)) is None
    assert spectral_floor(powers) == pytest.approx(spectral_floor(frame_powers(gated[spoken])), rel=1e-6)
    assert spectral_floor(np.zeros((100, 254))) is None


def test_a_short_burst_of_speech_is_no_pause():
    probability = np.zeros(100)
    probability[50:53] = 0.9
    pause = pause_frames([], probability, 100)
    assert not pause[47:56].any()
    assert pause[:47].all()
    assert pause[56:].all()


def test_over_time_the_ratio_falls_where_the_noise_comes_up():
    speech = mixed(30)
    speech[4 * 16_000 :] += np.random.default_rng(1).normal(0, 0.05, len(speech) - 4 * 16_000)
    powers = frame_powers(speech)
    series = ratio_over_time(powers, speech_frames(SPEECH, len(powers)))
    assert len(series) == -(-len(powers) // 10)
    assert series[0] is None
    assert np.mean(series[5:7]) > np.mean(series[14:17]) + 8


@given(st.floats(0, 10), st.floats(0, 10))
def test_ratios_stay_in_range(speech: float, noise: float):
    assert -20 <= ratio_db(speech, noise) <= 80


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_more_noise_never_reads_cleaner(seed: int):
    def estimate(snr_db: float) -> float:
        powers = frame_powers(mixed(snr_db, seed))
        level = powers[speech_frames(SPEECH, len(powers))].sum(1).mean()
        return ratio_db(level, spectral_floor(powers))

    assert estimate(20) > estimate(10) > estimate(0)
