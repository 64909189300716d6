"""Each fault does what its name says and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media.clip import ClipMedia
from pipelines.talkers.faults import degrade, drown, freeze, music, shift, subtitle, truncate

RATE = 24_000


@pytest.fixture
def frames() -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (10, 240, 320, 3), dtype=np.uint8))


def test_frozen_is_one_frame(frames: list[np.ndarray]) -> None:
    frozen = freeze(frames)
    assert len(frozen) == len(frames)
    assert all(np.array_equal(frame, frozen[0]) for frame in frozen)


def test_subtitles_change_the_bottom_only_and_leave_the_original(frames: list[np.ndarray]) -> None:
    grey = [np.full_like(frame, 127) for frame in frames]
    written = list(subtitle(grey, "one two three four five six seven eight"))
    for before, after in zip(grey, written):
        assert (before == 127).all()
        assert (after[:180] == 127).all()
        assert after[180:].max() == 255
        assert after[180:].min() == 0
    assert np.array_equal(written[0], written[4])
    assert not np.array_equal(written[0], written[9])


def test_degraded_keeps_the_size_and_loses_detail(frames: list[np.ndarray]) -> None:
    for before, after in zip(frames, degrade(frames)):
        assert after.shape == before.shape
        assert np.diff(after.astype(float), axis=1).std() < 0.1 * np.diff(before.astype(float), axis=1).std()


@pytest.mark.parametrize("snr_db", [0.0, 10.0])
def test_noise_is_as_loud_as_asked(snr_db: float) -> None:
    speech = (0.3 * np.sign(np.sin(np.arange(RATE) / 10))).astype(np.float32)
    noisy = drown(speech, snr_db, seed=1)
    gain = float(noisy @ speech / (speech @ speech))
    left = noisy - gain * speech
    assert 10 * np.log10(np.mean((gain * speech) ** 2) / np.mean(left**2)) == pytest.approx(snr_db, abs=0.3)
    assert np.abs(noisy).max() <= 0.7001


@given(st.integers(-500, 500))
@settings(deadline=None)
def test_shifted_is_the_same_audio_elsewhere(samples: int) -> None:
    speech = np.random.default_rng(2).normal(size=1000).astype(np.float32)
    moved = shift(speech, samples / RATE, RATE)
    assert len(moved) == len(speech)
    late, early = max(samples, 0), max(-samples, 0)
    np.testing.assert_array_equal(moved[late : 1000 - early], speech[early : 1000 - late])
    assert not moved[:late].any()
    assert not moved[1000 - early :].any()


def test_music_is_music_to_a_tagger(weights) -> None:
    from curation.audio.events import Events, EventsConfig
    from engine.items import Clip
    from engine.stage import OpenClip
    from media.resample import resample

    audio = music(5, RATE, seed=0)
    assert len(audio) == 5 * RATE
    stage = Events(EventsConfig(backend="yamnet"))
    stage.setup(weights(*stage.weights()))
    media = ClipMedia(5.0, audio=audio[None], audio_rate=RATE, speech=resample(audio, RATE, 16_000))
    (outcome,) = stage.score([OpenClip(Clip("k", "a.mp4", "c", 0, 5, 0, 0, 25, RATE), media)])
    assert outcome.values["music_mean"] > 0.8
    assert outcome.values["speech_mean"] < 0.1


def test_truncated_is_the_beginning(tmp_path) -> None:
    (tmp_path / "whole").write_bytes(bytes(range(100)))
    truncate(tmp_path / "whole", tmp_path / "part", share=0.25)
    assert (tmp_path / "part").read_bytes() == bytes(range(25))
