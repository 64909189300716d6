"""Whether lips and audio belong together, and by how much one is late: the offset of the most talkative face.

Two backends under one set of columns: ``syncnet``, the paper's network, when its weights are at hand, and ``lip_cca``,
this project's own estimator, whose weights ship with it. Their confidences are on different scales and stand in
different columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import torch

from curation.derived import face_tracks, speech_intervals, speech_probabilities
from engine.stage import SERIES, NotApplicable, OpenClip, Outcome, Stage, StageConfig, Value, field
from media.clip import GRID_FPS, ClipMedia
from media.mel import mfcc
from perception import lip_cca, syncnet
from perception.head_pose import head_pose
from perception.intervals import frame_times, mask_of
from perception.lip_cca import LipCca, SyncEstimate, load_lip_cca, move_audio
from perception.mouth import lip_gap
from perception.noise_floor import speech_snr_db
from perception.tracks import TRACKER_WEIGHTS, FaceTrack, load_tracker
from perception.vad import load_detector

# What the estimators can decide on, from the study in docs/lip_cca.md; not what a good clip is.
MIN_USABLE_S = 3.0
MAX_YAW = 45.0
MIN_SNR_DB = 5.0
MIN_SYNC_C = 1.5  # Ovi and SkyReels-V4 take less for noise
IN_SYNC_FRAMES = 3

WINDOW, STEP = 125, 25  # frames of the offset over time


class LipSyncConfig(StageConfig):
    """Which estimator.

    Attributes:
        backend: ``lip_cca``, which is part of the code, or ``syncnet``, which needs its weights, by registry or path.
    """

    backend: Literal["lip_cca", "syncnet"] = "lip_cca"


@dataclass(frozen=True, slots=True)
class _Comparison:
    """One comparison of lips and audio: what both backends give, and the columns that one alone fills.

    Attributes:
        strength: what speaks for the offset, on the backend's own scale.
        clear: whether the peak stands out more than noise does.
    """

    offset: int
    offset_s: float
    strength: float
    clear: bool
    curve: np.ndarray
    columns: Mapping[str, float]


class LipSync(Stage[OpenClip]):
    """Offset between the most talkative face and the audio, what speaks for it, and why it may not be trusted.

    Where the offset is not 0 the audio is moved by it and compared again: ``residual_offset_frames`` near 0 and
    a ``repaired_strength`` no lower say that a release may re-time the clip.
    """

    name = "lip_sync"
    version = "1"
    Config = LipSyncConfig
    needs = frozenset({"frames", "audio"})
    values = pa.schema(
        [
            field("estimator", pa.string(), "lip_cca or syncnet"),
            field("answer", pa.string(), "in_sync (within 3 frames), offset (re-timing may help) or undecided"),
            field("undecided", pa.list_(pa.string()), "Why: short, yaw, snr, no_peak; empty when decided"),
            field("track", pa.int32(), "Which face track was compared, an index into the faces scorer's"),
            field("offset_frames", pa.int32(), "Frames at 25 fps by which audio is late; lip_cca ±37, syncnet ±15"),
            field("offset_s", pa.float32(), "The same in seconds, refined between frames; + is audio late"),
            field("confidence", pa.float32(), "lip_cca: peak of the curve less its median, 0 to 1"),
            field("evidence", pa.float32(), "lip_cca: confidence times the root of the frames compared, 0 to about 12"),
            field("sync_evidence", pa.float32(), "lip_cca: evidence of the best lag within 3 frames of sync"),
            field("sync_c", pa.float32(), "syncnet: confidence LSE-C, 0 to about 12"),
            field("sync_d", pa.float32(), "syncnet: distance LSE-D, about 5 to 15, lower is better"),
            field("curve", SERIES, "Match (lip_cca: correlation, syncnet: minus distance) at each lag, 0 in mid"),
            field("offset_over_time", SERIES, "lip_cca: offset of 5 s windows, one a second, frames; null if unclear"),
            field("residual_offset_frames", pa.int32(), "Offset left after moving the audio by it; null at offset 0"),
            field("repaired_strength", pa.float32(), "evidence (lip_cca) or sync_c (syncnet) after that; null at 0"),
            field("usable_s", pa.float32(), "Seconds with both the face and speech"),
            field("yaw_deg", pa.float32(), "Median turn of the head away from frontal, degrees, 0 to 90"),
            field("speech_snr_db", pa.float32(), "Speech against noise in dB, as the snr scorer's snr_db"),
        ]
    )

    def weights(self) -> tuple[str, ...]:
        own = ("syncnet",) if self.config.backend == "syncnet" else ()
        return (*TRACKER_WEIGHTS, "silero_vad", *own)

    def setup(self, weights: Mapping[str, Path]) -> None:
        self._tracker = load_tracker(weights)
        self._detector = load_detector(weights["silero_vad"])
        self._model = load_lip_cca()
        self._net = syncnet.load_syncnet(weights["syncnet"]) if self.config.backend == "syncnet" else None

    def score(self, items: Sequence[OpenClip]) -> list[Outcome]:
        return [self._score(item.media) for item in items]

    def _score(self, media: ClipMedia) -> Outcome:
        if not len(media.speech):
            return NotApplicable("no audio")
        intervals = speech_intervals(media, self._detector)
        if not intervals:
            return NotApplicable("no speech")
        tracks = face_tracks(media, self._tracker)
        if not tracks:
            return NotApplicable("no face")
        spoken = mask_of(intervals, frame_times(len(media.frames)))
        index = max(range(len(tracks)), key=lambda k: _talkativeness(tracks[k], spoken))
        track = tracks[index]
        if len(media.speech) // syncnet.SAMPLES_PER_FRAME - track.frames[0] < syncnet.MIN_FRAMES:
            return NotApplicable("the sound ends before the face appears")
        lips, start = self._lips(track, media), int(track.frames[0])
        found = self._compare(lips, media.speech, start)

        usable_s = float(spoken[track.frames].sum() / GRID_FPS)
        turn = float(np.median(np.abs(head_pose(track.landmarks)[:, 0])))
        snr = speech_snr_db(media.speech, intervals, speech_probabilities(media, self._detector))
        undecided = [
            reason
            for reason, holds in (
                ("short", usable_s < MIN_USABLE_S),
                ("yaw", turn > MAX_YAW),
                ("snr", snr is not None and snr < MIN_SNR_DB),
                ("no_peak", not found.clear),
            )
            if holds
        ]
        answer = "in_sync" if abs(found.offset) <= IN_SYNC_FRAMES else "offset"
        repaired = None
        if found.offset:
            repaired = self._compare(lips, move_audio(media.speech, found.offset / GRID_FPS), start)
        return Value(
            dict.fromkeys(self.values.names)
            | found.columns
            | {
                "estimator": self.config.backend,
                "answer": "undecided" if undecided else answer,
                "undecided": undecided,
                "track": index,
                "offset_frames": found.offset,
                "offset_s": found.offset_s,
                "curve": found.curve.tolist(),
                "offset_over_time": self._over_time(lips, media.speech, start),
                "residual_offset_frames": repaired and repaired.offset,
                "repaired_strength": repaired and repaired.strength,
                "usable_s": usable_s,
                "yaw_deg": turn,
                "speech_snr_db": snr,
            }
        )

    def _lips(self, track: FaceTrack, media: ClipMedia) -> np.ndarray | torch.Tensor:
        """What the backend makes of the frames, once, however often the audio is moved."""
        if self._net is None:
            return lip_cca.lip_series(self._model, track.landmarks)
        return syncnet.embed_lips(self._net, syncnet.crop_track(media.frames[track.frames], track.boxes))

    def _compare(self, lips: np.ndarray | torch.Tensor, speech: np.ndarray, start: int) -> _Comparison:
        return (self._by_lip_cca if self._net is None else self._by_syncnet)(lips, speech, start)

    def _by_lip_cca(self, lips: np.ndarray, speech: np.ndarray, start: int) -> _Comparison:
        found = lip_cca.compare(self._model, lips, lip_cca.audio_series(self._model, speech), start)
        columns = {name: getattr(found, name) for name in ("confidence", "evidence", "sync_evidence")}
        clear = is_clear(self._model, found)
        return _Comparison(found.offset, found.offset_s, found.evidence, clear, found.curve, columns)

    def _by_syncnet(self, lips: torch.Tensor, speech: np.ndarray, start: int) -> _Comparison:
        per_frame = syncnet.SAMPLES_PER_FRAME
        samples = speech[start * per_frame : len(speech) // per_frame * per_frame] * 32768
        found = syncnet.compare(lips, syncnet.embed_audio(self._net, mfcc(samples)))
        columns = {"sync_c": found.sync_c, "sync_d": found.sync_d}
        clear = found.sync_c >= MIN_SYNC_C
        return _Comparison(found.offset, found.offset / GRID_FPS, found.sync_c, clear, -found.distances, columns)

    def _over_time(self, lips: np.ndarray | torch.Tensor, speech: np.ndarray, start: int) -> list[float | None] | None:
        if self._net is not None:
            return None
        audio = lip_cca.audio_series(self._model, speech)
        series: list[float | None] = []
        for first in range(0, len(lips) - WINDOW + 1, STEP):
            found = lip_cca.compare(self._model, lips[first : first + WINDOW], audio, start + first)
            series.append(float(found.offset) if is_clear(self._model, found) else None)
        return series


def is_clear(model: LipCca, found: SyncEstimate) -> bool:
    """Whether the peak stands out more than those of audio that does not belong to the face."""
    near = abs(found.offset) <= lip_cca.NEAR_FRAMES
    return found.evidence >= (model.floor_in_sync if near else model.floor_offset)


def _talkativeness(track: FaceTrack, spoken: np.ndarray) -> float:
    """Ranks tracks: time under speech × size × how much the mouth opens and closes."""
    return float(spoken[track.frames].sum() * np.median(track.sizes) * np.std(lip_gap(track.landmarks)))
