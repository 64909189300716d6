"""Does a visible mouth move while speech sounds? The stand-in for active speaker where no network's weights are.

No learned model and no claim to be one: it cannot tell speech from chewing, nor whose words a talking mouth says. A
frozen face and a closed mouth under a voice-over come out near zero, which is what it is for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy.ndimage import maximum_filter1d, minimum_filter1d, uniform_filter1d

from curation.audio.vad import load_detector
from curation.av.speech_time import runs, speech_frames
from curation.av.tracks import TRACKER_WEIGHTS, FaceTrack, load_tracker
from engine.stage import SERIES, NotApplicable, OpenClip, Outcome, Stage, Value, field
from media.clip import GRID_FPS, SPEECH_RATE, ClipMedia
from media.mel import log_mel

_UPPER_LIP, _LOWER_LIP, _NOSE, _NOSE_ROOT, _CHIN, _EYES = 0, 17, 2, 168, 152, (33, 263)
# A syllable lasts 0.2 to 0.3 s: a speaking mouth opens and closes within this many frames.
_SYLLABLE = 9
# Face Mesh's own jitter over as many frames is 2 to 2.5 % of the face's scale (the length of the nose, which does not
# change, on 20 clips none of which is in the labelled set); most talking mouths there have 8 to 20 %.
_MOVES = 0.05
_DRIFT = round(GRID_FPS)  # slower than 1 s is posture, not articulation
_MAX_LAG = 5
# The second formant's range, which follows the jaw better than loudness does.
_BAND_HZ = (900.0, 2400.0)
_MEL_BANDS, _WINDOW, _HOP, _N_FFT = 8, 480, 160, 512
_QUIET = 1e-6

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


@dataclass(frozen=True, slots=True)
class Mouth:
    """A mouth over time, in units of the face's scale, so that neither size nor distance matters.

    Attributes:
        opening: float ``[n]``, height of the lips, outer edges.
        motion: float ``[n]``, range of ``opening`` over nine frames.
        jaw: float ``[n]``, from nose to chin.
        jitter: the median of what ``motion`` would be for a length that does not change, the nose's.
    """

    opening: np.ndarray
    motion: np.ndarray
    jaw: np.ndarray
    jitter: float


def measure_mouth(landmarks: np.ndarray) -> Mouth:
    """The mouth of a track from its landmarks ``[n, 468, 3]``, by lengths in 3-D: turning the head hardly matters."""

    def length(a: int, b: int) -> np.ndarray:
        return np.linalg.norm(landmarks[:, a] - landmarks[:, b], axis=1)

    nose = length(_NOSE_ROOT, _NOSE)
    scale = (np.median(length(*_EYES)) + np.median(nose)) / 2
    opening = length(_UPPER_LIP, _LOWER_LIP) / scale
    jitter = float(np.median(_range(nose / scale)))
    return Mouth(opening, _range(opening), length(_NOSE, _CHIN) / scale, jitter)


def band_level(speech: np.ndarray, count: int) -> np.ndarray:
    """Mean log-mel level from 0.9 to 2.4 kHz, float ``[count]`` at 25 a second, of 16 kHz speech."""
    steps = round(SPEECH_RATE / GRID_FPS / _HOP)
    padded = np.zeros(count * steps * _HOP + _WINDOW, np.float32)
    lead = (_WINDOW - _HOP) // 2
    kept = speech[: len(padded) - lead]
    padded[lead : lead + len(kept)] = kept
    levels = log_mel(
        padded,
        SPEECH_RATE,
        n_fft=_N_FFT,
        hop=_HOP,
        n_mels=_MEL_BANDS,
        window=_WINDOW,
        low_hz=_BAND_HZ[0],
        high_hz=_BAND_HZ[1],
        floor=_QUIET,
    )
    return levels[: count * steps].mean(1).reshape(count, steps).mean(1)


def best_correlation(jaw: np.ndarray, sound: np.ndarray) -> tuple[float, int]:
    """Highest correlation of two ``[n]`` series without their drift, and the frames by which the sound is late there.

    Shifts of up to five frames are tried. 0 at shift 0 where one of them does not change.
    """
    jaw, sound = (series - uniform_filter1d(series, _DRIFT, mode="nearest") for series in (jaw, sound))
    found = (0.0, 0)
    for lag in range(-_MAX_LAG, _MAX_LAG + 1):
        a = jaw[max(-lag, 0) : len(jaw) - max(lag, 0)]
        b = sound[max(lag, 0) : len(sound) - max(-lag, 0)]
        if len(a) > _SYLLABLE and min(a.std(), b.std()) > 1e-6:
            found = max(found, (float(np.corrcoef(a, b)[0, 1]), lag))
    return found


class MouthMotion(Stage[OpenClip]):
    """How much of the speech some visible mouth moves in, per face and for all, and how that goes with the sound."""

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
        speech = speech_frames(self._detector.intervals(media), len(media.frames))
        if not speech.any():
            return NotApplicable("no speech" if len(media.speech) else "no audio")
        sound = band_level(media.speech, len(media.frames))
        return Value(_summary(self._tracker.tracks(media), speech, sound))


def _summary(faces: Sequence[FaceTrack], speech: np.ndarray, sound: np.ndarray) -> dict:
    mouths = [measure_mouth(face.landmarks) for face in faces]
    rows = [_row(k, face, mouth, speech, sound) for k, (face, mouth) in enumerate(zip(faces, mouths))]
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


def _row(number: int, face: FaceTrack, mouth: Mouth, speech: np.ndarray, sound: np.ndarray) -> dict:
    heard = speech[face.frames]
    correlation, lag = best_correlation(mouth.jaw, sound[face.frames])
    return {
        "track": number,
        "start_s": float(face.frames[0] / GRID_FPS),
        "end_s": float((face.frames[-1] + 1) / GRID_FPS),
        "speech_s": float(heard.sum() / GRID_FPS),
        "moving_share": float((mouth.motion[heard] >= _MOVES).mean()) if heard.any() else None,
        "motion": float(np.median(mouth.motion[heard])) if heard.any() else None,
        "motion_outside": float(np.median(mouth.motion[~heard])) if (~heard).sum() >= _DRIFT * 0.4 else None,
        "jitter": mouth.jitter,
        "correlation": correlation,
        "lag": lag,
    }


def _range(series: np.ndarray) -> np.ndarray:
    return maximum_filter1d(series, _SYLLABLE) - minimum_filter1d(series, _SYLLABLE)
