"""The faces of a clip: how many, how large, where, when, and how they are turned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from curation.derived import face_tracks
from engine.stage import SERIES, NotApplicable, OpenClip, Outcome, Stage, Value, field
from media.clip import GRID_FPS, ClipMedia
from perception.head_pose import head_pose
from perception.tracks import TRACKER_WEIGHTS, FaceTrack, load_tracker

STEP = 5  # ticks of the 25 fps grid between two entries of what is stored over time
_LIPS = [61, 291, 0, 17]  # corners, upper and lower edge
_MAX_MOUTH_YAW = 60.0

FACE_TRACKS = pa.list_(
    pa.struct(
        [
            ("track", pa.int32()),
            ("start_s", pa.float32()),
            ("end_s", pa.float32()),
            ("size_px", pa.float32()),
            ("coverage", pa.float32()),
            ("yaw", pa.float32()),
            ("confidence", pa.float32()),
        ]
    )
)
FACE_BOXES = pa.list_(
    pa.struct([("track", pa.int32()), *((name, pa.float32()) for name in ("time_s", "x1", "y1", "x2", "y2"))])
)


class Faces(Stage[OpenClip]):
    """Face tracks, summed up for the clip and for its main face, the one with the largest size × length.

    Faces are followed by BlazeFace and MediaPipe's Face Mesh on the shared 25 fps frames; sizes are given in pixels of
    the source. Nothing here sees an occlusion: a mouth behind a hand or a microphone counts as visible.
    """

    name = "faces"
    version = "1"
    needs = frozenset({"frames"})
    values = pa.schema(
        [
            field("track_count", pa.int32(), "Number of face tracks; a face that leaves and returns counts twice"),
            field("most_faces", pa.int32(), "Most faces seen at once"),
            field("coverage", pa.float32(), "Share of the clip in which a face is seen, 0 to 1"),
            field("several_share", pa.float32(), "Share of the clip in which two faces or more are seen, 0 to 1"),
            field("main_coverage", pa.float32(), "Share of the clip in which the main face is seen, 0 to 1"),
            field("size_px", pa.float32(), "Main face: median sqrt(width x height), chin to hairline, source pixels"),
            field("min_size_px", pa.float32(), "Main face: smallest such size, source pixels"),
            field("height_share", pa.float32(), "Main face: median height over the picture's height, 0 to 1 and more"),
            field("centre_x", pa.float32(), "Main face: median centre, 0 left edge to 1 right edge"),
            field("centre_y", pa.float32(), "Main face: median centre, 0 top edge to 1 bottom edge"),
            field("yaw", pa.float32(), "Main face: median yaw, degrees, positive to the picture's right"),
            field("pitch", pa.float32(), "Main face: median pitch, degrees, positive up"),
            field("roll", pa.float32(), "Main face: median roll, degrees, positive clockwise"),
            field("max_yaw", pa.float32(), "Main face: largest absolute yaw, degrees"),
            field("max_pitch", pa.float32(), "Main face: largest absolute pitch, degrees"),
            field("mouth_visible", pa.float32(), "Main face: share of time with lips in picture and yaw under 60°"),
            field("faces_over_time", SERIES, "Number of faces, five values a second from the clip's start"),
            field("tracks", FACE_TRACKS, "Each track: time (s), median size (source px), share of clip, median yaw"),
            field("boxes", FACE_BOXES, "Each track's box five times a second, as shares of width and height"),
        ]
    )

    def weights(self) -> tuple[str, ...]:
        return TRACKER_WEIGHTS

    def setup(self, weights: Mapping[str, Path]) -> None:
        self._tracker = load_tracker(weights)

    def score(self, items: Sequence[OpenClip]) -> list[Outcome]:
        return [self._score(item.media) for item in items]

    def _score(self, media: ClipMedia) -> Outcome:
        if not len(media.frames):
            return NotApplicable("no picture")
        tracks = face_tracks(media, self._tracker)
        counts = np.zeros(len(media.frames), np.int32)
        for track in tracks:
            counts[track.frames] += 1
        values = {
            "track_count": len(tracks),
            "most_faces": int(counts.max()),
            "coverage": float((counts > 0).mean()),
            "several_share": float((counts > 1).mean()),
            "faces_over_time": counts[::STEP].astype(np.float32),
            "tracks": [_row(number, track, media) for number, track in enumerate(tracks)],
            "boxes": [box for number, track in enumerate(tracks) for box in _boxes(number, track, media)],
            **(_main_face(tracks[0], media) if tracks else {"main_coverage": 0.0}),
        }
        return Value({name: values.get(name) for name in self.values.names})


def _main_face(track: FaceTrack, media: ClipMedia) -> dict[str, float]:
    height, width = media.frames.shape[1:3]
    pose = head_pose(track.landmarks)
    yaw, pitch, roll = (float(np.median(angle)) for angle in pose.T)
    max_yaw, max_pitch, _ = (float(angle) for angle in np.abs(pose).max(0))
    sizes = track.sizes * _source_scale(media)
    boxes = track.boxes / np.array([width, height, width, height], np.float32)
    centre_x, centre_y = np.median((boxes[:, :2] + boxes[:, 2:]) / 2, axis=0)
    lips = track.landmarks[:, _LIPS, :2]
    inside = ((lips >= 0) & (lips < (width, height))).all((1, 2))
    return {
        "main_coverage": len(track) / len(media.frames),
        "size_px": float(np.median(sizes)),
        "min_size_px": float(sizes.min()),
        "height_share": float(np.median(boxes[:, 3] - boxes[:, 1])),
        "centre_x": float(centre_x),
        "centre_y": float(centre_y),
        "yaw": yaw,
        "pitch": pitch,
        "roll": roll,
        "max_yaw": max_yaw,
        "max_pitch": max_pitch,
        "mouth_visible": float((inside & (np.abs(pose[:, 0]) < _MAX_MOUTH_YAW)).mean()),
    }


def _row(number: int, track: FaceTrack, media: ClipMedia) -> dict[str, float]:
    return {
        "track": number,
        "start_s": float(track.frames[0] / GRID_FPS),
        "end_s": float((track.frames[-1] + 1) / GRID_FPS),
        "size_px": float(np.median(track.sizes) * _source_scale(media)),
        "coverage": len(track) / len(media.frames),
        "yaw": float(np.median(head_pose(track.landmarks)[:, 0])),
        "confidence": float(track.confidence.mean()),
    }


def _boxes(number: int, track: FaceTrack, media: ClipMedia) -> list[dict[str, float]]:
    height, width = media.frames.shape[1:3]
    shares = track.boxes / np.array([width, height, width, height], np.float32)
    return [
        {"track": number, "time_s": float(frame / GRID_FPS), **dict(zip(("x1", "y1", "x2", "y2"), box.tolist()))}
        for frame, box in zip(track.frames, shares)
        if frame % STEP == 0
    ]


def _source_scale(media: ClipMedia) -> float:
    """Source pixels a pixel of ``media.frames``."""
    return max(media.width, media.height) / max(media.frames.shape[1:3])
