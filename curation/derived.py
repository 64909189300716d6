"""What several stages need of one clip, computed once a clip and shared by all of them."""

from __future__ import annotations

import numpy as np

from media.clip import SPEECH_RATE, ClipMedia
from perception.intervals import Interval
from perception.tracks import FaceTrack, FaceTracker
from perception.vad import SpeechDetector, find_intervals


def speech_probabilities(media: ClipMedia, detector: SpeechDetector) -> np.ndarray:
    """float32 ``[ceil(n / 512)]`` in 0…1, one a 32 ms window of ``media.speech``."""
    return media.derive("speech_probabilities", lambda m: detector.probabilities(m.speech))


def speech_intervals(media: ClipMedia, detector: SpeechDetector) -> list[Interval]:
    """Speech in seconds from the clip's start, ascending and disjoint."""
    return media.derive(
        "speech_intervals",
        lambda m: find_intervals(speech_probabilities(m, detector), len(m.speech) / SPEECH_RATE),
    )


def face_tracks(media: ClipMedia, tracker: FaceTracker) -> list[FaceTrack]:
    """The faces of ``media.frames``, the largest (mean size × length) first."""
    return media.derive("face_tracks", lambda m: tracker.track(m.frames))
