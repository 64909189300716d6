"""One computation a clip, whoever asks first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from curation.derived import face_tracks, speech_intervals, speech_probabilities
from media.clip import ClipMedia
from perception.tracks import FaceTracker
from perception.vad import SpeechDetector, find_intervals, load_detector


@pytest.fixture(scope="module")
def detector(weights: Callable[..., dict[str, Path]]) -> SpeechDetector:
    return load_detector(weights("silero_vad")["silero_vad"])


@pytest.fixture
def clip(interview: ClipMedia) -> ClipMedia:
    """A clip of which nothing has been derived yet."""
    return replace(interview, _derived={})


def test_speech_is_detected_once_a_clip(
    clip: ClipMedia, detector: SpeechDetector, weights: Callable[..., dict[str, Path]], monkeypatch
) -> None:
    intervals = speech_intervals(clip, detector)
    probabilities = speech_probabilities(clip, detector)
    monkeypatch.setattr(SpeechDetector, "probabilities", None)
    other = load_detector(weights("silero_vad")["silero_vad"])
    assert speech_probabilities(clip, other) is probabilities
    assert speech_intervals(clip, other) is intervals


def test_speech_is_what_the_detector_says_of_the_clips_audio(clip: ClipMedia, detector: SpeechDetector) -> None:
    expected = detector.probabilities(clip.speech)
    np.testing.assert_array_equal(speech_probabilities(clip, detector), expected)
    assert speech_intervals(clip, detector) == find_intervals(expected, len(clip.speech) / 16_000) != []


def test_a_clip_without_audio_has_no_speech(detector: SpeechDetector) -> None:
    assert speech_intervals(ClipMedia(2.0), detector) == []


def test_faces_are_tracked_once_a_clip(clip: ClipMedia, tracker: FaceTracker, monkeypatch) -> None:
    tracks = face_tracks(clip, tracker)
    assert len(tracks) == 2
    monkeypatch.setattr(FaceTracker, "track", None)
    assert face_tracks(clip, tracker) is tracks
