from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from curation.av.mouth_motion import MouthMotion
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
