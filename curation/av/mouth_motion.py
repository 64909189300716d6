"""Whether a visible mouth moves during speech: the stand-in for active speaker where no network's weights are.

No learned model and no claim to be one: it cannot tell speech from chewing, nor whose words a talking mouth says. A
frozen face and a closed mouth under a voice-over come out near zero, which is what it is for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from curation.derived import face_tracks, speech_intervals
from engine.stage import SERIES, NotApplicable, OpenClip, Outcome, Stage, Value, field
from media.clip import GRID_FPS, ClipMedia
from perception.intervals import frame_times, mask_of, runs
from perception.mouth import MouthTrack, band_level, best_correlation, measure_mouth
from perception.tracks import TRACKER_WEIGHTS, FaceTrack, load_tracker
from perception.vad import load_detector

# Face Mesh's own jitter over nine frames is 2 to 2.5 % of the face's scale (the length of the nose, which does not
# change, on 20 clips none of which is in the labelled set); most talking mouths there have 8 to 20 %.
_MOVES = 0.05
_MIN_OUTSIDE = 10  # frames outside speech from which their median is given

TRACK_MOTION = pa.list_(
    pa.struct(
        [
            ("track", pa.int32()),
            ("start_s", pa.float32()),
            ("end_s", pa.float32()),
            ("speech_s", pa.float32()),
            ("moving_share", pa.float32()),
            ("motion", pa.float32()),
            ("motion_outside", pa.float32()),
            ("jitter", pa.float32()),
            ("correlation", pa.float32()),
            ("lag", pa.int32()),
        ]
    )
)
MOVING = pa.list_(pa.struct([("track", pa.int32()), ("start_s", pa.float32()), ("end_s", pa.float32())]))


class MouthMotion(Stage[OpenClip]):
    """How much of the speech some visible mouth moves in, per face and for all, and how that goes with the audio."""

    name = "mouth_motion"
    version = "1"
    needs = frozenset({"frames", "audio"})
    values = pa.schema(
        [
            field("speech_covered", pa.float32(), "Share of the clip's speech during which some mouth moves, 0 to 1"),
            field("speaker_track", pa.int32(), "Number of the face that moves most and most with the sound"),
            field("moving_share", pa.float32(), "That face: share of the speech it is seen in that its mouth moves"),
            field("motion", pa.float32(), "That face: median range of lip height over 0.36 s, in speech, face scales"),
            field("motion_outside", pa.float32(), "The same outside speech; empty under 0.4 s of it"),
            field("jitter", pa.float32(), "The same for its nose, which does not move: the measure's noise"),
            field(
                "correlation", pa.float32(), "That face: jaw with level at 0.9-2.4 kHz, best shift of up to 5 frames"
            ),
            field("lag", pa.int32(), "Frames at 25 fps by which the sound is late at that correlation, -5 to 5"),
            field("moving_tracks", pa.int32(), "Number of faces whose mouth moves in half of the speech or more"),
            field("speech_s", pa.float32(), "Length of the speech on the 25 fps grid, s"),
            field("tracks", TRACK_MOTION, "The same measures for each face"),
            field("moving", MOVING, "When each mouth moves, during speech; s from clip start"),
            field("opening_start_s", pa.float32(), "Time of the first of openings, s from clip start"),
            field("openings", SERIES, "speaker_track's lip height at 25 a second, in face scales"),
        ]
    )

    def weights(self) -> tuple[str, ...]:
        return ("silero_vad", *TRACKER_WEIGHTS)

    def setup(self, weights: Mapping[str, Path]) -> None:
        self._detector = load_detector(weights["silero_vad"])
        self._tracker = load_tracker(weights)

    def score(self, items: Sequence[OpenClip]) -> list[Outcome]:
        return [self._score(item.media) for item in items]

    def _score(self, media: ClipMedia) -> Outcome:
        speech = mask_of(speech_intervals(media, self._detector), frame_times(len(media.frames)))
        if not speech.any():
            return NotApplicable("no speech" if len(media.speech) else "no audio")
        level = band_level(media.speech, len(media.frames))
        return Value(_summary(face_tracks(media, self._tracker), speech, level))


def _summary(faces: Sequence[FaceTrack], speech: np.ndarray, level: np.ndarray) -> dict:
    mouths = [measure_mouth(face.landmarks) for face in faces]
    rows = [_row(k, face, mouth, speech, level) for k, (face, mouth) in enumerate(zip(faces, mouths))]
    covered = np.zeros(len(speech), bool)
    moving = []
    for row, face, mouth in zip(rows, faces, mouths):
        spoken = speech[face.frames] & (mouth.motion >= _MOVES)
        covered[face.frames] |= spoken
        first = int(face.frames[0])
        moving += [
            {"track": row["track"], "start_s": (first + a) / GRID_FPS, "end_s": (first + b) / GRID_FPS}
            for a, b in runs(spoken)
        ]
    with_speech = [row for row in rows if row["moving_share"] is not None]
    best = max(with_speech, key=lambda row: row["speech_s"] * row["moving_share"] * row["correlation"], default=None)
    number = None if best is None else best["track"]
    shared = ("moving_share", "motion", "motion_outside", "jitter", "correlation", "lag")
    return {
        "speech_covered": float(covered.sum() / speech.sum()),
        "speaker_track": number,
        **{name: None if best is None else best[name] for name in shared},
        "moving_tracks": sum(row["moving_share"] >= 0.5 for row in with_speech),
        "speech_s": float(speech.sum() / GRID_FPS),
        "tracks": rows,
        "moving": moving,
        "opening_start_s": None if best is None else best["start_s"],
        "openings": None if best is None else mouths[number].opening.astype(np.float32),
    }


def _row(number: int, face: FaceTrack, mouth: MouthTrack, speech: np.ndarray, level: np.ndarray) -> dict:
    heard = speech[face.frames]
    correlation, lag = best_correlation(mouth.jaw, level[face.frames])
    return {
        "track": number,
        "start_s": float(face.frames[0] / GRID_FPS),
        "end_s": float((face.frames[-1] + 1) / GRID_FPS),
        "speech_s": float(heard.sum() / GRID_FPS),
        "moving_share": float((mouth.motion[heard] >= _MOVES).mean()) if heard.any() else None,
        "motion": float(np.median(mouth.motion[heard])) if heard.any() else None,
        "motion_outside": float(np.median(mouth.motion[~heard])) if (~heard).sum() >= _MIN_OUTSIDE else None,
        "jitter": mouth.jitter,
        "correlation": correlation,
        "lag": lag,
    }
