"""Face tracks: boxes and landmarks of each face over consecutive frames.

tracker = load_tracker(weights)  # weights holds the files of TRACKER_WEIGHTS
tracks = tracker.track(frames)  # frames: uint8 RGB [T, h, w, 3] at 25 fps

BlazeFace looks for faces on every fifth frame and where a face was lost; Face Mesh follows each face from frame to
frame in the region where it last was, as MediaPipe does, and its presence score is what tells a face from what only
looks like one to the detector. Linking follows the demo code of TalkNet and Light-ASD: gaps of up to 10 frames are
bridged by interpolation, shorter tracks than 10 frames are dropped, and a cut ends every track.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from perception.face_detector import FaceDetector, iou
from perception.landmarks import FaceLandmarks, FaceRegion, bounds

TRACKER_WEIGHTS = ("face_detector", "face_landmarks")

DETECT_EVERY = 5
MAX_GAP = 10
MIN_FRAMES = 10
_MIN_DETECTION = 0.4
_MIN_PRESENCE = 0.5
_SAME_FACE_IOU = 0.3
# The mesh ends on the forehead, face detectors draw their boxes to the hairline: this share of the mesh's height
# above it, measured against YuNet's boxes (their bottoms, centres and widths agree with the mesh's within 7 %).
_HAIRLINE = 0.15
# PySceneDetect's AdaptiveDetector defaults: the mean change of hue, saturation and value (0…255) between two frames is
# at least this much, and this many times its mean over two frames before and two after.
_CUT_CHANGE, _CUT_RATIO, _CUT_WINDOW = 15.0, 3.0, 2
_CUT_WIDTH = 64


@dataclass(frozen=True, slots=True)
class FaceTrack:
    """One face over consecutive frames at 25 fps.

    Attributes:
        frames: int64 ``[n]``, consecutive indices into the frames that were tracked.
        boxes: float32 ``[n, 4]``, x1, y1, x2, y2 in pixels of those frames: chin to hairline, as face detectors draw
            them. They may reach over the frame's edge.
        confidence: float32 ``[n]``, probability that a face is there; 0 where it was interpolated.
        landmarks: float32 ``[n, 468, 3]`` in the order of MediaPipe's mesh: x, y in pixels of the frames, z in the
            same unit, smaller is nearer.
    """

    frames: np.ndarray
    boxes: np.ndarray
    confidence: np.ndarray
    landmarks: np.ndarray

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def sizes(self) -> np.ndarray:
        """float32 ``[n]``: geometric mean of the box's sides, in pixels."""
        return np.sqrt(np.prod(self.boxes[:, 2:] - self.boxes[:, :2], axis=1))


class FaceTracker:
    """BlazeFace and Face Mesh over the frames of one clip."""

    def __init__(self, detector: Path, landmarks: Path) -> None:
        self._detect = FaceDetector(detector, _MIN_DETECTION)
        self._landmarks = FaceLandmarks(landmarks)

    def track(self, frames: np.ndarray) -> list[FaceTrack]:
        """The faces of ``frames``, uint8 RGB ``[T, h, w, 3]`` at 25 fps, the largest (mean size × length) first."""
        cuts = set(find_cuts(frames))
        live: list[_TrackBuilder] = []
        ended: list[_TrackBuilder] = []
        for index, frame in enumerate(frames):
            if index in cuts:
                ended += live
                live = []
            for track in live:
                self._follow(track, index, frame)
            live, merged = _drop_duplicates(live, index)
            if index % DETECT_EVERY == 0 or index in cuts or any(track.last < index for track in live):
                live += self._find(live, index, frame)
            ended += merged + [track for track in live if index - track.last > MAX_GAP]
            live = [track for track in live if index - track.last <= MAX_GAP]
        found = [track.finish() for track in ended + live if len(track.frames) >= MIN_FRAMES]
        # What was seen only now and then is a thing that resembles a face.
        found = [track for track in found if track.confidence.mean() >= _MIN_PRESENCE]
        return sorted(found, key=lambda track: (-float(track.sizes.sum()), int(track.frames[0])))

    def _follow(self, track: _TrackBuilder, index: int, frame: np.ndarray) -> None:
        # The region moves every frame. To hold it while the head is still gave steadier landmarks, but a jaw that goes
        # less with the audio (mean correlation .60 instead of .65 on seven clips of talkers).
        points, presence = self._landmarks(frame, FaceRegion.of_landmarks(track.points[-1][:, :2]))
        if presence >= _MIN_PRESENCE:
            track.add(index, points, presence)

    def _find(self, live: list[_TrackBuilder], index: int, frame: np.ndarray) -> list[_TrackBuilder]:
        """New faces in ``frame``; one that lies where a live track was lost continues that track."""
        new: list[_TrackBuilder] = []
        for detection in self._detect(frame):
            seen = [track for track in live + new if track.last == index]
            if _overlapping(detection.box, seen):
                continue
            points, presence = self._landmarks(frame, FaceRegion.around(detection.box, detection.eyes))
            if presence < _MIN_PRESENCE:
                continue
            # A second look, in the region that following will use, so that a track does not start with a jump.
            points, presence = self._landmarks(frame, FaceRegion.of_landmarks(points[:, :2]))
            box = bounds(points)
            if presence < _MIN_PRESENCE or _overlapping(box, seen):
                continue
            lost = _overlapping(box, [track for track in live if track.last < index])
            if lost is None:
                lost = _TrackBuilder()
                new.append(lost)
            lost.add(index, points, presence)
        return new


@lru_cache
def _shared_tracker(detector: Path, landmarks: Path) -> FaceTracker:
    return FaceTracker(detector, landmarks)


def load_tracker(weights: Mapping[str, Path]) -> FaceTracker:
    """The tracker of the files named in :data:`TRACKER_WEIGHTS`, loaded once a process however many callers ask."""
    return _shared_tracker(*(weights[name] for name in TRACKER_WEIGHTS))


def find_cuts(frames: np.ndarray) -> list[int]:
    """Indices of frames that begin a new shot, by the rule of PySceneDetect's AdaptiveDetector."""
    change = np.zeros(len(frames))
    before = None
    for index, frame in enumerate(frames):
        height = max(1, round(frame.shape[0] * _CUT_WIDTH / frame.shape[1]))
        # Every few pixels first: an area mean over all of them would cost as much as following a face.
        step = max(1, frame.shape[1] // (2 * _CUT_WIDTH))
        small = cv2.resize(frame[::step, ::step], (_CUT_WIDTH, height), interpolation=cv2.INTER_AREA)
        now = cv2.cvtColor(small, cv2.COLOR_RGB2HSV).astype(np.int16)
        if before is not None:
            change[index] = np.abs(now - before).mean()
        before = now
    return [index for index in range(1, len(frames)) if _stands_out(change, index)]


def _stands_out(change: np.ndarray, index: int) -> bool:
    # The first frame has no change, so it is no neighbour either.
    around = np.concatenate([change[max(index - _CUT_WINDOW, 1) : index], change[index + 1 : index + 1 + _CUT_WINDOW]])
    return bool(change[index] >= _CUT_CHANGE and change[index] * len(around) >= _CUT_RATIO * around.sum())


@dataclass(slots=True)
class _TrackBuilder:
    """A track that is being built."""

    frames: list[int] = field(default_factory=list)
    points: list[np.ndarray] = field(default_factory=list)
    presence: list[float] = field(default_factory=list)

    @property
    def last(self) -> int:
        return self.frames[-1]

    def add(self, index: int, points: np.ndarray, presence: float) -> None:
        self.frames.append(index)
        self.points.append(points)
        self.presence.append(presence)

    def finish(self) -> FaceTrack:
        seen = np.array(self.frames)
        frames = np.arange(seen[0], seen[-1] + 1)
        points = np.stack(self.points).reshape(len(seen), -1)
        after = np.searchsorted(seen, frames)
        before = np.maximum(after - (seen[after] != frames), 0)
        weight = (frames - seen[before]) / np.maximum(seen[after] - seen[before], 1)
        filled = points[before] + (points[after] - points[before]) * weight[:, None].astype(np.float32)
        landmarks = filled.reshape(len(frames), -1, 3)
        boxes = bounds(landmarks)
        boxes[:, 1] -= _HAIRLINE * (boxes[:, 3] - boxes[:, 1])
        confidence = np.where(seen[after] == frames, np.array(self.presence)[after], 0).astype(np.float32)
        return FaceTrack(frames, boxes, confidence, landmarks)


def _overlapping(box: np.ndarray, tracks: Sequence[_TrackBuilder]) -> _TrackBuilder | None:
    """The track whose last face overlaps ``box`` most, if any does enough."""
    if not tracks:
        return None
    shared = iou(box, np.stack([bounds(track.points[-1]) for track in tracks]))
    best = int(shared.argmax())
    return tracks[best] if shared[best] > _SAME_FACE_IOU else None


def _drop_duplicates(live: list[_TrackBuilder], index: int) -> tuple[list[_TrackBuilder], list[_TrackBuilder]]:
    """Two tracks that have come to follow one face: the older goes on, the younger ends before this frame."""
    kept: list[_TrackBuilder] = []
    dropped: list[_TrackBuilder] = []
    for track in live:
        if track.last == index and _overlapping(bounds(track.points[-1]), [k for k in kept if k.last == index]):
            track.frames.pop(), track.points.pop(), track.presence.pop()
            dropped.append(track)
        else:
            kept.append(track)
    return kept, dropped
