"""The mouth follows the audio."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.talkers.articulation import FPS, articulate, closed

RATE = 24_000


def tone(hz: float, seconds: float) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)


def test_a_vowel_opens_the_mouth_when_it_is_heard_and_silence_closes_it() -> None:
    audio = np.concatenate([np.zeros(RATE), tone(800, 1), np.zeros(RATE)]).astype(np.float32)
    mouth = articulate(audio, RATE)
    assert len(mouth) == 3 * FPS
    assert mouth.opening[: FPS - 3].max() < 0.01
    assert mouth.opening[FPS + 3 : 2 * FPS - 3].min() > 0.9
    assert mouth.opening[2 * FPS + 3 :].max() < 0.01
    # No lag: half open within a frame of the vowel's own beginning.
    assert abs(int(np.argmax(mouth.opening > 0.5)) - FPS) <= 1


def test_hissing_does_not_open_the_mouth() -> None:
    hiss = tone(6000, 1)
    mouth = articulate(np.concatenate([tone(800, 1), hiss]).astype(np.float32), RATE)
    assert mouth.opening[FPS + 3 :].max() < 0.05


def test_a_high_second_formant_spreads_and_a_low_one_rounds() -> None:
    see, do = tone(350, 1) + tone(2200, 1), tone(350, 1) + tone(800, 1)
    mouth = articulate(np.concatenate([see, do]).astype(np.float32), RATE)
    assert mouth.width[5:20].mean() > 0.3
    assert mouth.width[30:45].mean() < -0.3


@given(st.integers(0, 2**32 - 1), st.floats(1e-4, 1.0), st.integers(1, 3 * RATE))
@settings(max_examples=25, deadline=None)
def test_any_audio_gives_values_in_range_one_a_frame(seed: int, level: float, samples: int) -> None:
    audio = (level * np.random.default_rng(seed).normal(size=samples)).astype(np.float32)
    mouth = articulate(audio, RATE)
    assert len(mouth.opening) == len(mouth.width) == -(-samples * FPS // RATE)
    assert mouth.opening.min() >= 0
    assert mouth.opening.max() <= 1
    assert np.abs(mouth.width).max() <= 1


@pytest.mark.parametrize("gain", [0.01, 100.0])
def test_the_recording_level_does_not_matter(gain: float) -> None:
    audio = np.concatenate([tone(800, 1) * np.hanning(RATE), np.zeros(RATE)]).astype(np.float32)
    np.testing.assert_allclose(articulate(audio, RATE).opening, articulate(audio * gain, RATE).opening, atol=0.01)


def test_a_closed_mouth_stays_closed() -> None:
    mouth = closed(7)
    assert len(mouth) == 7
    assert not mouth.opening.any()
