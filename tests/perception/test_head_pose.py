from __future__ import annotations

import cv2
import numpy as np
import pytest

from media.clip import ClipMedia
from perception.head_pose import head_pose
from perception.tracks import FaceTracker


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
    """A mirrored face turns the other way by the same angle; turning the image adds to roll alone."""
    yaw = head_pose(tracker.track(interview.frames)[0].landmarks)[:, 0]
    middle = int(np.clip(np.abs(yaw).argmax(), 6, len(yaw) - 6))
    clip = interview.frames[middle - 6 : middle + 6]
    height, width = clip.shape[1:3]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), -15, 1)  # OpenCV's positive is anticlockwise
    mirrored = np.stack([cv2.flip(frame, 1) for frame in clip])
    turned_clip = np.stack([cv2.warpAffine(frame, turn, (width, height)) for frame in clip])
    pose, mirror, rolled = (
        np.median(head_pose(tracker.track(frames)[0].landmarks), 0) for frames in (clip, mirrored, turned_clip)
    )
    assert abs(pose[0]) > 3
    np.testing.assert_allclose(mirror, pose * [-1, 1, -1], atol=5)
    np.testing.assert_allclose(rolled - pose, [0, 0, 15], atol=5)
