from __future__ import annotations

import cv2
import numpy as np
import pyarrow as pa
import pytest

from curation.av.faces import Faces
from curation.av.pose import head_pose
from curation.av.tracks import TRACKER_WEIGHTS, FaceTracker
from engine.stage import NotApplicable, Value
from media.clip import ClipMedia
from tests.curation.av.conftest import opened, pictures


@pytest.fixture(scope="module")
def faces(weights) -> Faces:
    stage = Faces()
    assert stage.weights() == TRACKER_WEIGHTS
    stage.setup(weights(*stage.weights()))
    return stage


def measured(stage: Faces, media: ClipMedia) -> dict:
    (outcome,) = stage.score([opened(media)])
    assert isinstance(outcome, Value)
    return pa.Table.from_pylist([dict(outcome.values)], schema=stage.values).to_pylist()[0]


def test_one_face(faces: Faces, portrait: np.ndarray) -> None:
    frames = np.repeat(portrait[None], 24, 0)
    frames[12:, :230, 100:] = 120
    values = measured(faces, pictures(frames, scale=3))
    assert values["track_count"] == 1 and values["most_faces"] == 1
    assert values["coverage"] == values["main_coverage"] == pytest.approx(0.5)
    assert values["several_share"] == 0
    assert values["size_px"] == pytest.approx(3 * 109, rel=0.05)
    assert values["height_share"] == pytest.approx(124 / 512, rel=0.05)
    assert values["centre_x"] == pytest.approx(0.44, abs=0.02)
    assert values["centre_y"] == pytest.approx(0.22, abs=0.02)
    assert values["mouth_visible"] == 1
    assert values["faces_over_time"] == [1, 1, 1, 0, 0]
    (track,) = values["tracks"]
    assert (track["start_s"], track["end_s"]) == (0, pytest.approx(0.48))
    assert [box["time_s"] for box in values["boxes"]] == pytest.approx([0, 0.2, 0.4])
    assert values["boxes"][0]["x1"] == pytest.approx(178 / 512, abs=0.01)


def test_two_faces(faces: Faces, interview: ClipMedia) -> None:
    values = measured(faces, interview)
    assert values["track_count"] == values["most_faces"] == 2
    assert values["coverage"] == values["several_share"] == 1
    assert values["centre_x"] > 0.5
    assert {box["track"] for box in values["boxes"]} == {0, 1}


def test_no_face_is_a_measurement(faces: Faces) -> None:
    values = measured(faces, pictures(np.full((12, 90, 160, 3), 80, np.uint8)))
    assert values["track_count"] == 0 and values["coverage"] == 0 and values["main_coverage"] == 0
    assert values["size_px"] is None and values["yaw"] is None
    assert values["tracks"] == [] and values["boxes"] == []


def test_without_a_picture_it_has_no_meaning(faces: Faces) -> None:
    assert faces.score([opened(ClipMedia(1.0))]) == [NotApplicable("no picture")]


def test_a_mouth_below_the_edge_is_not_visible(faces: Faces, portrait: np.ndarray) -> None:
    cut = np.repeat(portrait[None, :138], 12, 0)
    values = measured(faces, pictures(cut))
    assert values["track_count"] == 1
    assert values["mouth_visible"] == 0


def turned(yaw: float = 0, pitch: float = 0, roll: float = 0) -> np.ndarray:
    """Landmarks [1, 468, 3] of a flat face turned by the angles, in degrees."""
    points = np.zeros((468, 3))
    points[[234, 454, 10, 152]] = [[-1, 0, 0], [1, 0, 0], [0, -1.2, 0], [0, 1.2, 0]]
    a, b, c = np.radians([yaw, pitch, roll])
    around_y = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
    around_x = np.array([[1, 0, 0], [0, np.cos(b), np.sin(b)], [0, -np.sin(b), np.cos(b)]])
    around_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return (points @ (around_z @ around_y @ around_x).T)[None]


@pytest.mark.parametrize("angles", [(0, 0, 0), (30, 0, 0), (-40, 0, 0), (0, 20, 0), (0, -15, 0), (0, 0, 25)])
def test_angles_are_recovered(angles: tuple[float, float, float]) -> None:
    np.testing.assert_allclose(head_pose(turned(*angles))[0], angles, atol=0.5)


def test_signs_of_yaw_and_roll_in_a_real_face(tracker: FaceTracker, interview: ClipMedia) -> None:
    """A mirrored picture turns the other way by the same angle; turning the picture adds to roll alone."""
    yaw = head_pose(tracker.tracks(interview)[0].landmarks)[:, 0]
    middle = int(np.clip(np.abs(yaw).argmax(), 6, len(yaw) - 6))
    clip = interview.frames[middle - 6 : middle + 6]
    height, width = clip.shape[1:3]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), -15, 1)  # OpenCV's positive is anticlockwise
    mirrored = np.stack([cv2.flip(frame, 1) for frame in clip])
    turned_clip = np.stack([cv2.warpAffine(frame, turn, (width, height)) for frame in clip])
    pose, mirror, rolled = (
        np.median(head_pose(tracker.tracks(pictures(frames))[0].landmarks), 0)
        for frames in (clip, mirrored, turned_clip)
    )
    assert abs(pose[0]) > 3
    np.testing.assert_allclose(mirror, pose * [-1, 1, -1], atol=5)
    np.testing.assert_allclose(rolled - pose, [0, 0, 15], atol=5)
