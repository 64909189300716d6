from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from curation.video.text_overlay import TextOverlay, TextOverlayConfig, _Reading, classify
from engine.stage import NotApplicable, OpenClip, Value
from media.clip import ClipMedia
from tests.curation.video.conftest import open_clip, write


@pytest.fixture(scope="module")
def reader(weights) -> TextOverlay:
    stage = TextOverlay()
    stage.setup(weights(*stage.weights()))
    return stage


def of_stills(stills: list[np.ndarray]) -> OpenClip:
    height, width = stills[0].shape[:2]
    return OpenClip(None, ClipMedia(6, width, height, stills=stills, still_times_s=np.arange(len(stills)) + 0.5))


def measure(stage: TextOverlay, stills: list[np.ndarray]) -> dict:
    (outcome,) = stage.score([of_stills(stills)])
    assert isinstance(outcome, Value), outcome
    assert set(outcome.values) == set(TextOverlay.values.names)
    return dict(outcome.values)


def test_a_plain_portrait_has_no_text(reader, portrait):
    values = measure(reader, [portrait, np.roll(portrait, 9, axis=1)])
    assert values["area"] == values["time_share"] == values["logo_area"] == 0
    assert values["strings"] == [] and values["readings"] == []


def test_subtitles_are_read_with_their_share_of_time_and_area(reader, portrait):
    stills = [portrait, write(portrait, "welcome to the show", (60, 335)), write(portrait, "see you again", (110, 335))]
    values = measure(reader, [*stills, portrait])
    assert values["time_share"] == values["subtitle_time_share"] == pytest.approx(0.5)
    # A line of about 340 × 30 of 480 × 360 pixels in one still, 230 × 30 in another, none in the rest.
    assert 0.015 < values["area"] < 0.05
    assert values["subtitle_area"] == values["area"] < values["peak_area"]
    assert [text.replace(" ", "") for text in values["strings"]] == ["welcometotheshow", "seeyouagain"]
    assert min(values["confidences"]) >= 0.8
    first = values["readings"][0]
    assert first["time_s"] == 1.5 and first["kind"] == "subtitle"
    assert 0.1 < first["left"] < first["right"] < 0.9 and 0.85 < first["top"] < first["bottom"] <= 1


def test_a_channel_logo_is_reported_apart(reader, portrait):
    logo = write(portrait, "NEWS 24", (345, 40), 0.8)
    values = measure(reader, [logo, np.ascontiguousarray(write(portrait[:, ::-1], "NEWS 24", (345, 40), 0.8)), logo])
    assert values["area"] == values["time_share"] == 0 and values["strings"] == []
    assert values["logo_time_share"] == 1 and 0.005 < values["logo_area"] < 0.05
    assert values["logo_strings"][0].replace(" ", "") == "NEWS24"


def test_the_same_corner_text_in_one_still_only_is_no_logo(reader, portrait):
    values = measure(reader, [write(portrait, "NEWS 24", (345, 40), 0.8), portrait])
    assert values["logo_area"] == 0 and values["time_share"] == 0.5


def test_equal_stills_are_read_once(reader, portrait, monkeypatch):
    calls = []
    monkeypatch.setattr(reader, "_read", lambda still: calls.append(still) or [])
    measure(reader, [portrait, portrait, write(portrait, "hello", (200, 335), 0.7), portrait])
    assert len(calls) == 3


def test_a_line_turned_clockwise_is_read(reader):
    page = np.full((480, 360, 3), 128, np.uint8)
    strip = write(np.full((60, 300, 3), 128, np.uint8), "sideways text", (10, 42))
    page[90:390, 150:210] = np.rot90(strip, -1)
    assert measure(reader, [page])["strings"][:1] in (["sideways text"], ["sidewaystext"])


def test_a_clip_without_stills_has_no_answer(reader):
    assert isinstance(reader.score([OpenClip(None, ClipMedia(3))])[0], NotApplicable)


@pytest.mark.parametrize("size", [(2, 2), (16, 900), (900, 16)])
def test_odd_sizes_are_read(reader, size):
    measure(reader, [np.zeros((*size, 3), np.uint8)])


def test_an_unknown_backend_is_refused():
    with pytest.raises(ValidationError):
        TextOverlayConfig(backend="tesseract")


def box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)


@pytest.mark.parametrize(
    ("corners", "stills", "kind"),
    [
        (box(0.8, 0.03, 0.95, 0.08), (0, 1, 2), "logo"),
        (box(0.8, 0.03, 0.95, 0.08), (0, 1), "other"),
        (box(0.1, 0.85, 0.9, 0.93), (0, 1, 2), "subtitle"),
        (box(0.42, 0.85, 0.58, 0.93), (1,), "subtitle"),
        (box(0.05, 0.9, 0.2, 0.95), (0, 1, 2), "logo"),
        (box(0.2, 0.03, 0.8, 0.09), (0, 1, 2), "other"),
        (box(0.4, 0.4, 0.6, 0.5), (0, 1, 2), "other"),
    ],
)
def test_kinds_follow_place_size_and_constancy(corners, stills, kind):
    readings = [_Reading(still, "CHANNEL", 0.99, corners) for still in stills]
    classify(readings, 3)
    assert {reading.kind for reading in readings} == {kind}


def test_real_clips_keep_apart(shared, reader):
    folder = shared / "bench" / "clips"
    text = reader.score([open_clip(folder / "may__text.mp4", 4.8)])[0].values
    keep = reader.score([open_clip(folder / "may__keep.mp4", 4.8)])[0].values
    assert text["area"] > 0.05 and text["time_share"] == 1 and text["subtitle_time_share"] == 1
    assert keep["area"] == 0
