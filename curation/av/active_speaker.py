"""Whose voice it is: how much of the speech each visible face is speaking, by Light-ASD or LR-ASD.

Neither network sees an offset between audio and video, nor another person's words in the same mouth (1 s late moves
Light-ASD's mean by -0.18 of a spread of about 1): that is lip sync's question. They do tell a talking face from one
that does not talk, and speech from other audio.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from curation.derived import face_tracks, speech_intervals
from engine.stage import SERIES, NotApplicable, OpenClip, Outcome, Stage, StageConfig, Value, field
from media.clip import GRID_FPS, SPEECH_RATE, ClipMedia
from perception.asd import DURATIONS, face_crops, load_asd, speaking_scores, speech_cepstra
from perception.intervals import frame_times, mask_of, runs
from perception.tracks import TRACKER_WEIGHTS, FaceTrack, load_tracker
from perception.vad import load_detector

_SAMPLES_PER_FRAME = round(SPEECH_RATE / GRID_FPS)
_SPEAKS_S = 0.5  # a face counts among the speaking ones from this much speech on
_SHOWN = np.ones(5) / 5  # the public demo shows the mean over five frames


class ActiveSpeakerConfig(StageConfig):
    """Which network, and how exactly it is run.

    Attributes:
        model: ``light_asd`` or ``lr_asd``, both trained on AVA.
        durations: lengths in seconds of the pieces that scores are averaged over; the published demo has 1 to 6.
        encode_once: run the convolutions once a track instead of once a duration, which is faster by their number;
            False is the published way.
        max_tracks: only so many faces are scored, the largest ones.
    """

    model: Literal["light_asd", "lr_asd"] = "light_asd"
    durations: tuple[int, ...] = Field(DURATIONS, min_length=1)
    encode_once: bool = False
    max_tracks: int = Field(4, ge=1)


TRACK_SPEECH = pa.list_(
    pa.struct(
        [
            ("track", pa.int32()),
            ("start_s", pa.float32()),
            ("end_s", pa.float32()),
            ("speech_s", pa.float32()),
            ("speaking_share", pa.float32()),
            ("mean_score", pa.float32()),
        ]
    )
)
SPEAKING = pa.list_(pa.struct([("track", pa.int32()), ("start_s", pa.float32()), ("end_s", pa.float32())]))


@dataclass(frozen=True, slots=True)
class _TrackScores:
    """Scores of one track and, for the same frames, which of them fall in speech."""

    start: int
    scores: np.ndarray
    speech: np.ndarray

    @property
    def spoken(self) -> np.ndarray:
        return self.speech & (self.scores > 0)


class ActiveSpeaker(Stage[OpenClip]):
    """How much of the speech has a visible face speaking it, per face and for all.

    Tracks are numbered as in the faces scorer. Frames count as speech where the voice activity detector says so.
    """

    name = "active_speaker"
    version = "1"
    Config = ActiveSpeakerConfig
    needs = frozenset({"frames", "audio"})
    values = pa.schema(
        [
            field("speech_covered", pa.float32(), "Share of the clip's speech during which some face speaks, 0 to 1"),
            field("speaker_track", pa.int32(), "Number of the face that speaks most of the speech; empty without"),
            field("speaking_share", pa.float32(), "That face: share spoken of the speech it is seen in, 0 to 1"),
            field("mean_score", pa.float32(), "That face: mean score over the same frames; logit, over 0 is speaking"),
            field("speaking_tracks", pa.int32(), "Number of faces that speak for 0.5 s or more"),
            field("scored_tracks", pa.int32(), "Number of faces that were scored"),
            field("speech_s", pa.float32(), "Length of the speech on the 25 fps grid, s"),
            field(
                "tracks", TRACK_SPEECH, "Each scored face: seconds of speech it is seen in, share spoken, mean logit"
            ),
            field("speaking", SPEAKING, "When each face speaks, during speech; s from clip start"),
            field("score_start_s", pa.float32(), "Time of the first of scores, s from clip start"),
            field("scores", SERIES, "speaker_track's score at 25 a second, mean of 5 frames, speech or not; logit"),
        ]
    )

    def weights(self) -> tuple[str, ...]:
        return (self.config.model, "silero_vad", *TRACKER_WEIGHTS)

    def setup(self, weights: Mapping[str, Path]) -> None:
        self._net = load_asd(weights[self.config.model], self.config.model)
        self._detector = load_detector(weights["silero_vad"])
        self._tracker = load_tracker(weights)

    def score(self, items: Sequence[OpenClip]) -> list[Outcome]:
        return [self._score(item.media) for item in items]

    def _score(self, media: ClipMedia) -> Outcome:
        speech = mask_of(speech_intervals(media, self._detector), frame_times(len(media.frames)))
        if not speech.any():
            return NotApplicable("no speech" if len(media.speech) else "no audio")
        faces = face_tracks(media, self._tracker)[: self.config.max_tracks]
        return Value(_summary([self._score_track(media, face, speech) for face in faces], speech))

    def _score_track(self, media: ClipMedia, face: FaceTrack, speech: np.ndarray) -> _TrackScores:
        start, stop = int(face.frames[0]), int(face.frames[-1]) + 1
        audio = media.speech[start * _SAMPLES_PER_FRAME : stop * _SAMPLES_PER_FRAME]
        scores = speaking_scores(
            self._net,
            face_crops(media.frames[start:stop], face.boxes),
            speech_cepstra(audio),
            self.config.durations,
            self.config.encode_once,
        )
        return _TrackScores(start, scores, speech[start : start + len(scores)])


def _summary(tracks: Sequence[_TrackScores], speech: np.ndarray) -> dict:
    covered = np.zeros(len(speech), bool)
    for track in tracks:
        covered[track.start : track.start + len(track.spoken)] |= track.spoken
    spoken = [int(track.spoken.sum()) for track in tracks]
    heard = [int(track.speech.sum()) for track in tracks]
    means = [float(track.scores[track.speech].mean()) if n else None for track, n in zip(tracks, heard)]
    shares = [k / n if n else None for k, n in zip(spoken, heard)]
    # Where no face speaks, the one that came nearest.
    with_speech = [k for k, n in enumerate(heard) if n]
    best = max(with_speech, key=lambda k: (spoken[k], means[k]), default=None)
    return {
        "speech_covered": float(covered.sum() / speech.sum()),
        "speaker_track": best,
        "speaking_share": None if best is None else shares[best],
        "mean_score": None if best is None else means[best],
        "speaking_tracks": sum(k >= _SPEAKS_S * GRID_FPS for k in spoken),
        "scored_tracks": len(tracks),
        "speech_s": float(speech.sum() / GRID_FPS),
        "tracks": [
            {
                "track": k,
                "start_s": track.start / GRID_FPS,
                "end_s": (track.start + len(track.scores)) / GRID_FPS,
                "speech_s": heard[k] / GRID_FPS,
                "speaking_share": shares[k],
                "mean_score": means[k],
            }
            for k, track in enumerate(tracks)
        ],
        "speaking": [
            {"track": k, "start_s": (track.start + a) / GRID_FPS, "end_s": (track.start + b) / GRID_FPS}
            for k, track in enumerate(tracks)
            for a, b in runs(track.spoken)
        ],
        "score_start_s": None if best is None else tracks[best].start / GRID_FPS,
        "scores": None if best is None else _smooth(tracks[best].scores),
    }


def _smooth(scores: np.ndarray) -> np.ndarray:
    """Mean over up to five frames around each, fewer at the ends."""
    return np.convolve(scores, _SHOWN, "same") / np.convolve(np.ones(len(scores)), _SHOWN, "same")
