from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from scipy.ndimage import gaussian_filter1d

from curation.av.mouth_motion import MouthMotion, band_level, best_correlation, measure_mouth
from engine.stage import NotApplicable, Value
from media.clip import ClipMedia
from media.planes import Planes
from tests.curation.av.conftest import opened


@pytest.fixture(scope="module")
def stage(weights) -> MouthMotion:
    stage = MouthMotion()
    stage.setup(weights(*stage.weights()))
    return stage


def measured(stage: MouthMotion, media: ClipMedia) -> dict:
    (outcome,) = stage.score([opened(media)])
    assert isinstance(outcome, Value)
    return pa.Table.from_pylist([dict(outcome.values)], schema=stage.values).to_pylist()[0]


def test_the_speaker_is_told_from_the_listener(stage: MouthMotion, interview: ClipMedia) -> None:
    values = measured(stage, interview)
    speaker, listener = values["tracks"]
    assert values["speaker_track"] == speaker["track"] == 0
    assert values["moving_share"] == speaker["moving_share"] > 0.6 > 0.4 > listener["moving_share"]
    assert speaker["correlation"] > 0.4 > listener["correlation"]
    assert abs(values["lag"]) <= 2
    assert speaker["motion"] > 2 * listener["motion"] > 0
    assert speaker["motion"] > 2 * speaker["jitter"]
    assert values["moving_tracks"] == 1
    assert values["speech_covered"] >= values["moving_share"]
    assert len(values["openings"]) == len(interview.frames)


def test_a_frozen_face_under_speech_does_not_move(stage: MouthMotion, interview: ClipMedia) -> None:
    frozen = replace(interview, planes=Planes(np.repeat(interview.frames[:1], len(interview.frames), 0)), _derived={})
    values = measured(stage, frozen)
    assert values["speech_s"] > 1
    assert values["speech_covered"] == 0 and values["moving_share"] == 0 and values["moving_tracks"] == 0
    assert values["motion"] < 0.02
    assert values["moving"] == []


def test_speech_without_a_face_is_covered_by_none(stage: MouthMotion, interview: ClipMedia) -> None:
    faceless = replace(interview, planes=Planes(np.full_like(interview.frames, 90)), _derived={})
    values = measured(stage, faceless)
    assert values["speech_covered"] == 0 and values["tracks"] == []
    assert values["speaker_track"] is None and values["moving_share"] is None


def test_without_speech_it_has_no_meaning(stage: MouthMotion, interview: ClipMedia) -> None:
    silent = replace(interview, speech=np.zeros_like(interview.speech), _derived={})
    mute = replace(interview, speech=np.zeros(0, np.float32), audio_rate=0, _derived={})
    outcomes = stage.score([opened(silent), opened(mute)])
    assert outcomes == [NotApplicable("no speech"), NotApplicable("no audio")]


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


@pytest.mark.parametrize("late", [-5, -2, 0, 3, 5])
def test_the_lag_of_the_sound_is_found(late: int) -> None:
    series = gaussian_filter1d(np.random.default_rng(3).standard_normal(220), 2)
    jaw, sound = series[10:210], series[10 - late : 210 - late]
    correlation, lag = best_correlation(jaw, sound + np.linspace(0, 5, 200))
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


def test_sound_shorter_than_the_picture_is_padded() -> None:
    assert band_level(np.zeros(1000, np.float32), 25).shape == (25,)
    assert band_level(np.zeros(0, np.float32), 10).shape == (10,)
