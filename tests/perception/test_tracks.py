from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from perception.face_detector import iou
from perception.tracks import DETECT_EVERY, MAX_GAP, MIN_FRAMES, FaceTracker, find_cuts

FACE = (177.7, 50.6, 273.3, 174.5)  # the portrait's


def moving(portrait: np.ndarray, count: int, step: float = 3.0) -> np.ndarray:
    """The portrait moving to the right by ``step`` pixels a frame."""
    height, width = portrait.shape[:2]
    return np.stack(
        [cv2.warpAffine(portrait, np.float32([[1, 0, step * k], [0, 1, 0]]), (width, height)) for k in range(count)]
    )


def without_face(frames: np.ndarray) -> np.ndarray:
    blank = frames.copy()
    blank[:, :230, 100:] = 120
    return blank


def test_a_moving_face_is_one_track(tracker: FaceTracker, portrait: np.ndarray) -> None:
    (track,) = tracker.track(moving(portrait, 20))
    assert track.frames.tolist() == list(range(20))
    assert track.boxes.dtype == np.float32 and track.boxes.shape == (20, 4)
    assert track.landmarks.dtype == np.float32 and track.landmarks.shape == (20, 468, 3)
    assert (track.confidence > 0.9).all()
    expected = np.array(FACE) + 3 * np.arange(20)[:, None] * [1, 0, 1, 0]
    np.testing.assert_allclose(track.boxes, expected, atol=6)
    np.testing.assert_allclose(track.sizes, np.sqrt(95.6 * 123.9), rtol=0.05)


def test_landmarks_lie_where_they_should(tracker: FaceTracker, portrait: np.ndarray) -> None:
    (track,) = tracker.track(np.repeat(portrait[None], 10, 0))
    x1, y1, x2, y2 = track.boxes[0]
    right_eye, left_eye, nose, mouth, chin = track.landmarks[0, [33, 263, 1, 13, 152], :2]
    assert x1 < right_eye[0] < nose[0] < left_eye[0] < x2
    assert y1 < right_eye[1] < nose[1] < mouth[1] < chin[1] <= y2
    # Nearer is smaller: the nose's tip stands out.
    assert track.landmarks[0, 1, 2] < track.landmarks[0, [234, 454], 2].min()


def test_a_still_face_gives_still_landmarks(tracker: FaceTracker, portrait: np.ndarray) -> None:
    (track,) = tracker.track(np.repeat(portrait[None], 15, 0))
    steps = np.abs(np.diff(track.landmarks[..., :2], axis=0))
    assert np.median(steps) < 0.3 and steps.max() < 2


@pytest.mark.parametrize("side", [240, 200])
def test_small_faces_are_found(tracker: FaceTracker, portrait: np.ndarray, side: int) -> None:
    frame = np.full((360, 640, 3), 90, np.uint8)
    frame[100 : 100 + side, 200 : 200 + side] = cv2.resize(portrait, (side, side), interpolation=cv2.INTER_AREA)
    (track,) = tracker.track(np.repeat(frame[None], MIN_FRAMES, 0))
    assert track.sizes.mean() == pytest.approx(109 * side / 512, rel=0.2)


def test_two_people_are_two_tracks(tracker: FaceTracker, interview) -> None:
    tracks = tracker.track(interview.frames)
    assert [len(track) for track in tracks] == [len(interview.frames)] * 2
    assert tracks[0].sizes.mean() > tracks[1].sizes.mean()
    # The speaker is to the right of the listener in every frame: no change of identity.
    assert (tracks[0].boxes[:, 0] > tracks[1].boxes[:, 2]).all()


def test_a_short_gap_is_bridged_in_a_straight_line(tracker: FaceTracker, portrait: np.ndarray) -> None:
    frames = moving(portrait, 28)
    gap = slice(12, 12 + MAX_GAP - 2)
    frames[gap] = without_face(frames[gap])
    (track,) = tracker.track(frames)
    assert track.frames.tolist() == list(range(28))
    assert (track.confidence[gap] == 0).all() and (np.delete(track.confidence, range(12, 20)) > 0.5).all()
    steps = np.diff(track.boxes[11:21], axis=0)
    np.testing.assert_allclose(steps, np.tile(steps[:1], (9, 1)), atol=1e-3)


def test_a_long_gap_ends_the_track(tracker: FaceTracker, portrait: np.ndarray) -> None:
    frames = moving(portrait, 45, step=1)
    frames[12 : 12 + MAX_GAP + 5] = without_face(frames[12 : 12 + MAX_GAP + 5])
    tracks = tracker.track(frames)
    first, second = sorted((int(track.frames[0]), int(track.frames[-1])) for track in tracks)
    assert first == (0, 11)
    # Faces are looked for on every fifth frame.
    back = 12 + MAX_GAP + 5
    assert back <= second[0] < back + DETECT_EVERY and second[1] == 44


def test_a_cut_ends_the_track(tracker: FaceTracker, portrait: np.ndarray) -> None:
    frames = np.repeat(portrait[None], 24, 0)
    frames[12:] = cv2.flip(portrait, 1)
    frames[12:, 230:] = 255 - frames[12:, 230:]
    assert find_cuts(frames) == [12]
    tracks = tracker.track(frames)
    assert sorted((int(t.frames[0]), int(t.frames[-1])) for t in tracks) == [(0, 11), (12, 23)]


def test_less_than_ten_frames_are_no_track(tracker: FaceTracker, portrait: np.ndarray) -> None:
    assert tracker.track(np.repeat(portrait[None], MIN_FRAMES - 1, 0)) == []


def test_what_is_no_face_gives_no_track(tracker: FaceTracker, portrait: np.ndarray) -> None:
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (12, 40, 64, 3), dtype=np.uint8)
    assert tracker.track(np.stack([cv2.resize(frame, (640, 400)) for frame in noise])) == []
    card = np.full((300, 400, 3), 200, np.uint8)
    for centre, radius in (((200, 150), 90), ((165, 120), 14), ((235, 120), 14), ((200, 200), 30)):
        cv2.circle(card, centre, radius, (60, 60, 60), 4)
    assert tracker.track(np.repeat(card[None], 12, 0)) == []
    assert tracker.track(np.repeat(portrait[None, 250:, 150:], 12, 0)) == []


def test_no_frames_are_no_tracks(tracker: FaceTracker) -> None:
    assert tracker.track(np.zeros((0, 0, 0, 3), np.uint8)) == []


def test_camera_motion_and_fades_are_no_cuts(portrait: np.ndarray) -> None:
    assert find_cuts(moving(portrait, 10, step=12)) == []
    assert find_cuts(np.zeros((0, 0, 0, 3), np.uint8)) == []
    assert find_cuts(np.stack([(portrait * (1 - k / 25)).astype(np.uint8) for k in range(25)])) == []


@given(hnp.arrays(np.float64, (6, 4), elements=st.floats(0, 100)))
def test_overlap_is_a_share(corners: np.ndarray) -> None:
    boxes = np.concatenate(
        [np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:]) + 1], 1
    )
    shared = iou(boxes[0], boxes)
    assert shared[0] == pytest.approx(1)
    assert (shared >= 0).all() and (shared <= 1 + 1e-9).all()
    assert shared[1] == pytest.approx(iou(boxes[1], boxes)[0])
