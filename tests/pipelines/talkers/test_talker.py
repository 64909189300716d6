"""The rendered head, measured by the landmark network."""

from __future__ import annotations

import numpy as np
import pytest

from perception.tracks import FaceTrack, FaceTracker
from pipelines.demo_corpus import PEOPLE, SIDE, portrait_of
from pipelines.talkers.articulation import Mouth, closed
from pipelines.talkers.talker import PortraitError, Talker, find_face

FRAMES = 45


@pytest.fixture(scope="module", params=[1, 2], ids=[PEOPLE[1].name, PEOPLE[2].name])
def talker(request, weights, tracker) -> Talker:
    person = PEOPLE[request.param]
    return Talker(find_face(portrait_of(person, weights(person.portrait)[person.portrait]), tracker))


def chew() -> Mouth:
    """Open and shut about twice a second."""
    times = np.arange(FRAMES) / 25
    return Mouth((0.5 - 0.5 * np.cos(2 * np.pi * 2 * times)).astype(np.float32), np.zeros(FRAMES, np.float32))


def track_of(tracker: FaceTracker, frames: list[np.ndarray]) -> FaceTrack:
    (track,) = tracker.track(np.stack(frames))
    assert len(track) == len(frames)
    return track


def opening(track: FaceTrack) -> np.ndarray:
    points = track.landmarks[..., :2]
    gap = np.linalg.norm(points[:, 13] - points[:, 14], axis=1)
    return gap / np.linalg.norm(points[:, 10] - points[:, 152], axis=1)


def test_the_mouth_opens_as_it_is_driven(talker: Talker, tracker) -> None:
    mouth = chew()
    frames = list(talker.frames(mouth, seed=1))
    assert {(frame.shape, frame.dtype) for frame in frames} == {((SIDE, SIDE, 3), np.dtype(np.uint8))}
    measured = opening(track_of(tracker, frames))
    assert np.corrcoef(measured, mouth.opening)[0, 1] > 0.9
    assert np.ptp(measured) > 0.04


def test_a_closed_mouth_stays_closed_on_a_living_head(talker: Talker, tracker) -> None:
    frames = list(talker.frames(closed(FRAMES), seed=2))
    track = track_of(tracker, frames)
    assert opening(track).max() < 0.03
    nose = track.landmarks[:, 1, :2]
    assert np.ptp(nose, axis=0).max() > 1.0
    # A lid is lighter than the iris that it covers.
    assert max(light := iris_light(frames, track)) > 1.25 * np.median(light), "no blink"


def iris_light(frames: list[np.ndarray], track: FaceTrack) -> list[float]:
    """Brightness in the middle of the right eye, frame by frame."""
    middles = track.landmarks[:, [159, 145], :2].mean(axis=1).round().astype(int)
    return [float(frame[y - 2 : y + 3, x - 3 : x + 4].mean()) for frame, (x, y) in zip(frames, middles)]


def test_a_seed_decides_every_pixel(talker: Talker) -> None:
    one, again, other = (list(talker.frames(closed(3), seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_an_image_without_a_face_is_refused(tracker) -> None:
    with pytest.raises(PortraitError, match="0 faces"):
        find_face(np.full((SIDE, SIDE, 3), 127, np.uint8), tracker)
