from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from curation.av.faces import Faces
from engine.stage import NotApplicable, Value
from media.clip import ClipMedia
from perception.tracks import TRACKER_WEIGHTS
from tests.curation.av.conftest import opened, silent_clip


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
    values = measured(faces, silent_clip(frames, scale=3))
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
    values = measured(faces, silent_clip(np.full((12, 90, 160, 3), 80, np.uint8)))
    assert values["track_count"] == 0 and values["coverage"] == 0 and values["main_coverage"] == 0
    assert values["size_px"] is None and values["yaw"] is None
    assert values["tracks"] == [] and values["boxes"] == []


def test_without_frames_it_has_no_meaning(faces: Faces) -> None:
    assert faces.score([opened(ClipMedia(1.0))]) == [NotApplicable("no picture")]


def test_a_mouth_below_the_edge_is_not_visible(faces: Faces, portrait: np.ndarray) -> None:
    cut = np.repeat(portrait[None, :138], 12, 0)
    values = measured(faces, silent_clip(cut))
    assert values["track_count"] == 1
    assert values["mouth_visible"] == 0
