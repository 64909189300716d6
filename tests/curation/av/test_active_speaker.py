from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from curation.av.active_speaker import ActiveSpeaker, ActiveSpeakerConfig
from curation.derived import face_tracks, speech_intervals
from engine.stage import NotApplicable, Value
from media.clip import ClipMedia
from media.planes import Planes
from perception.tracks import FaceTracker, load_tracker
from perception.vad import SpeechDetector, load_detector
from tests.curation.av.conftest import opened


def measured(stage: ActiveSpeaker, media: ClipMedia) -> dict:
    (outcome,) = stage.score([opened(media)])
    assert isinstance(outcome, Value)
    return pa.Table.from_pylist([dict(outcome.values)], schema=stage.values).to_pylist()[0]


def of_track(monkeypatch: pytest.MonkeyPatch, scores: Callable[[int, int], np.ndarray]) -> None:
    """Let the network's answer be ``scores(number of the call, frames)``."""
    calls = iter(range(100))
    monkeypatch.setattr(
        "curation.av.active_speaker.speaking_scores",
        lambda net, faces, cepstra, durations, encode_once: scores(next(calls), len(faces) - 1).astype(np.float32),
    )


@pytest.fixture
def stage(weights: Callable[..., dict[str, Path]], monkeypatch: pytest.MonkeyPatch) -> ActiveSpeaker:
    """The scorer with real tracks and speech; the tests put the network's answers."""
    monkeypatch.setattr("curation.av.active_speaker.load_asd", lambda path, model: None)
    stage = ActiveSpeaker()
    names = stage.weights()
    assert names[0] == "light_asd"
    stage.setup({"light_asd": Path("absent"), **weights(*names[1:])})
    return stage


def test_the_network_decides_whose_voice_it_is(
    stage: ActiveSpeaker, interview: ClipMedia, monkeypatch: pytest.MonkeyPatch
) -> None:
    def second_speaks_in_the_second_half(track: int, count: int) -> np.ndarray:
        return np.where(np.arange(count) >= count // 2, 1.5, -2.0) if track == 1 else np.full(count, -3.0)

    of_track(monkeypatch, second_speaks_in_the_second_half)
    values = measured(stage, interview)
    first, second = values["tracks"]
    assert values["speaker_track"] == 1 and values["speaking_tracks"] == 1 and values["scored_tracks"] == 2
    assert first["speaking_share"] == 0 and first["mean_score"] == pytest.approx(-3)
    assert 0 < second["speaking_share"] < 1
    assert values["speaking_share"] == second["speaking_share"]
    assert values["speech_covered"] == pytest.approx(second["speaking_share"], abs=0.02)
    half = (len(interview.frames) - 1) // 2 / 25
    assert all(run["track"] == 1 and run["start_s"] >= half - 1e-6 for run in values["speaking"])
    spoken = sum(run["end_s"] - run["start_s"] for run in values["speaking"])
    assert spoken == pytest.approx(second["speaking_share"] * second["speech_s"], abs=1e-4)
    assert len(values["scores"]) == len(interview.frames) - 1 and values["score_start_s"] == 0
    assert (values["scores"][0], values["scores"][-1]) == pytest.approx((-2, 1.5))


def test_two_faces_cover_more_of_the_speech_than_either(
    stage: ActiveSpeaker, interview: ClipMedia, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_turns(track: int, count: int) -> np.ndarray:
        return np.where((np.arange(count) < count // 2) == (track == 0), 1.0, -1.0)

    of_track(monkeypatch, in_turns)
    values = measured(stage, interview)
    assert values["speech_covered"] > 0.97
    assert values["speaking_tracks"] == 2 and values["speaking_share"] < 0.9
    assert sum(track["speaking_share"] for track in values["tracks"]) == pytest.approx(1)


def test_the_nearest_is_reported_where_none_speaks(
    stage: ActiveSpeaker, interview: ClipMedia, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_track(monkeypatch, lambda track, count: np.full(count, -1.0 - track))
    values = measured(stage, interview)
    assert values["speech_covered"] == 0 and values["speaking_share"] == 0 and values["speaking_tracks"] == 0
    assert values["speaker_track"] == 0 and values["mean_score"] == pytest.approx(-1)
    assert values["speaking"] == []


def test_speech_without_a_face_is_covered_by_none(stage: ActiveSpeaker, interview: ClipMedia) -> None:
    faceless = replace(interview, planes=Planes(np.full_like(interview.frames, 90)), _derived={})
    values = measured(stage, faceless)
    assert values["speech_covered"] == 0 and values["scored_tracks"] == 0 and values["speech_s"] > 1
    assert values["speaker_track"] is None and values["scores"] is None


def test_without_speech_it_has_no_meaning(stage: ActiveSpeaker, interview: ClipMedia) -> None:
    silent = replace(interview, speech=np.zeros_like(interview.speech), _derived={})
    mute = replace(interview, speech=np.zeros(0, np.float32), audio_rate=0, _derived={})
    outcomes = stage.score([opened(silent), opened(mute)])
    assert outcomes == [NotApplicable("no speech"), NotApplicable("no audio")]


def test_speech_and_tracks_are_shared_with_the_other_scorers(
    stage: ActiveSpeaker, interview: ClipMedia, weights: Callable[..., dict[str, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    of_track(monkeypatch, lambda track, count: np.ones(count))
    names = ("silero_vad", "face_detector", "face_landmarks")
    fresh = replace(interview, _derived={})
    speech_intervals(fresh, load_detector(weights(*names)["silero_vad"]))
    tracks = face_tracks(fresh, load_tracker(weights(*names)))
    monkeypatch.setattr(SpeechDetector, "probabilities", None)
    monkeypatch.setattr(FaceTracker, "track", None)
    assert measured(stage, fresh)["scored_tracks"] == len(tracks)


@pytest.mark.parametrize(("model", "file"), [("light_asd", "light_asd_ava_cvpr"), ("lr_asd", "lr_asd_ava")])
@pytest.mark.parametrize("encode_once", [False, True])
def test_published_weights_find_the_speaker(
    shared: Path,
    weights: Callable[..., dict[str, Path]],
    interview: ClipMedia,
    model: str,
    file: str,
    encode_once: bool,
) -> None:
    torch.set_num_threads(1)
    stage = ActiveSpeaker(ActiveSpeakerConfig(model=model, durations=(2,), encode_once=encode_once))
    names = stage.weights()
    stage.setup({model: shared / "weights" / f"{file}.model", **weights(*names[1:])})
    values = measured(stage, interview)
    assert values["speaker_track"] == 0
    speaker, listener = values["tracks"]
    assert speaker["speaking_share"] > 0.4 > 0.1 > listener["speaking_share"]
