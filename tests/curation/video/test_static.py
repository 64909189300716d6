from __future__ import annotations

import cv2
import numpy as np
import pytest

from curation.video.static import Static
from engine.stage import NotApplicable, OpenClip, Value
from media.clip import ClipMedia
from media.planes import Planes
from tests.curation.video.conftest import FRAMES, open_clip, talk, write


def measure(clip: OpenClip) -> dict:
    (outcome,) = Static().score([clip])
    assert isinstance(outcome, Value), outcome
    assert set(outcome.values) == set(Static.values.names)
    return dict(outcome.values)


def pan(image: np.ndarray, zoom: float, slide: float) -> list[np.ndarray]:
    height, width = image.shape[:2]
    frames = []
    for tick in range(FRAMES):
        part = tick / FRAMES
        move = cv2.getRotationMatrix2D((width / 2, height / 2), 0, 1.1 + zoom * part)
        move[0, 2] += slide * width * (part - 0.5)
        frames.append(cv2.warpAffine(image, move, (width, height), borderMode=cv2.BORDER_REPLICATE))
    return frames


@pytest.mark.parametrize("crf", [18, 40])
def test_a_frozen_frame_is_frozen_through_codec_noise(portrait, encoded, crf):
    values = measure(encoded([portrait] * FRAMES, crf=crf))
    assert values["frozen_share"] == 1
    assert values["slides"] == 1
    assert values["longest_frozen_s"] == pytest.approx(2.8)
    assert values["frozen"] == [{"start_s": 0, "end_s": pytest.approx(2.8)}]
    assert values["ever_moving_area"] == 0
    assert values["home_share"] is None and values["motion_y"] is None


def test_a_talking_head_on_a_tripod_is_not_static(portrait, encoded):
    values = measure(encoded(talk(portrait)))
    assert values["frozen_share"] == 0
    assert values["still_share"] < 0.3
    assert values["slides"] == 0
    assert values["home_share"] < 0.4
    assert 0.25 < values["motion_y"] < 0.6
    assert 0.005 < values["moving_area"] < 0.3
    assert len(values["activity"]) == 14 and min(values["activity"]) >= 0


@pytest.mark.parametrize(("zoom", "slide"), [(0.2, 0.0), (0.0, 0.15), (0.06, 0.02)])
def test_a_pan_or_zoom_over_a_photograph_is_still(portrait, encoded, zoom, slide):
    values = measure(encoded(pan(portrait, zoom, slide)))
    assert values["frozen_share"] < 0.3
    assert values["still_share"] > 0.9
    assert values["global_motion"] > 0.001


def test_a_slide_show_has_slides(portrait, encoded):
    slides = [portrait, portrait[:, ::-1], 255 - portrait]
    values = measure(encoded([np.ascontiguousarray(slides[tick * 3 // FRAMES]) for tick in range(FRAMES)]))
    assert values["slides"] == 3
    assert values["frozen_share"] > 0.8
    assert values["longest_frozen_s"] < 1.1


def test_what_passes_over_a_still_leaves_it_as_it_was(portrait, encoded):
    def logo(tick: int) -> np.ndarray:
        at = round(80 + 50 * np.sin(tick / 12)), round(70 + 30 * np.cos(tick / 9))
        return cv2.circle(portrait.copy(), at, 26, (250, 200, 0), -1)

    def credits(tick: int) -> np.ndarray:
        drawn = portrait
        for line in range(8):
            drawn = write(drawn, f"credits {line}", (60, 330 + 50 * line - 4 * tick), 0.8)
        return drawn

    living = measure(encoded(talk(portrait)))["home_share"]
    for overlay in (logo, credits):
        values = measure(encoded(overlay(tick) for tick in range(FRAMES)))
        assert values["frozen_share"] < 0.2
        assert values["home_share"] > 0.45 > living


def test_a_ticker_moves_at_the_edge(portrait, encoded):
    band = write(np.full((36, 1600, 3), 60, np.uint8), "news of the day and more " * 4, (5, 26), 0.8)

    def ticker(tick: int) -> np.ndarray:
        drawn = portrait.copy()
        drawn[-40:-4] = band[:, 4 * tick : 4 * tick + drawn.shape[1]]
        return drawn

    values = measure(encoded(ticker(tick) for tick in range(FRAMES)))
    assert values["motion_y"] > 0.85
    assert values["ever_moving_area"] < 0.15


def test_a_stall_is_found_in_time(portrait, encoded):
    frames = talk(portrait)
    frames[25:60] = [frames[25]] * 35
    (stall,) = [run for run in measure(encoded(frames))["frozen"] if run["end_s"] - run["start_s"] > 0.5]
    assert stall["start_s"] == pytest.approx(1.0, abs=0.21)
    assert stall["end_s"] == pytest.approx(2.4, abs=0.21)


@pytest.mark.parametrize("ticks", [0, 1, 5])
def test_a_clip_too_short_to_move_has_no_answer(ticks):
    (outcome,) = Static().score(
        [OpenClip(None, ClipMedia(0.04 * ticks, planes=Planes(np.zeros((ticks, 9, 16, 3), np.uint8))))]
    )
    assert isinstance(outcome, NotApplicable)


@pytest.mark.parametrize("size", [(1, 1), (8, 300), (700, 2)])
def test_odd_sizes_are_measured(size):
    frames = np.random.default_rng(0).integers(0, 255, (11, *size, 3)).astype(np.uint8)
    measure(OpenClip(None, ClipMedia(0.44, planes=Planes(frames))))


def test_real_clips_keep_apart(shared):
    folder = shared / "bench" / "clips"
    for name in ("vr2", "ls1", "may"):
        assert measure(open_clip(folder / f"{name}__static.mp4", 4.8))["frozen_share"] > 0.9
        keep = measure(open_clip(folder / f"{name}__keep.mp4", 4.8))
        assert keep["frozen_share"] < 0.1 and keep["still_share"] < 0.5
