from __future__ import annotations

import cv2
import numpy as np
import pytest

from curation.video.quality import Quality, QualityConfig
from engine.stage import NotApplicable, OpenClip, Value
from media.clip import ClipMedia
from tests.curation.video.conftest import open_clip, talk


@pytest.fixture(scope="module")
def stage(weights) -> Quality:
    quality = Quality()
    quality.setup(weights(*quality.weights()))
    return quality


def measure(stage: Quality, clip: OpenClip) -> dict:
    (outcome,) = stage.score([clip])
    assert isinstance(outcome, Value), outcome
    assert set(outcome.values) == set(Quality.values.names)
    return dict(outcome.values)


def test_each_degradation_shows(stage, portrait, encoded):
    frames = talk(portrait)[:25]
    good = measure(stage, encoded(frames, crf=18))
    blurred = measure(stage, encoded([cv2.GaussianBlur(frame, (0, 0), 3) for frame in frames], crf=18))
    squeezed = measure(stage, encoded(frames, crf=48))
    assert blurred["sharpness"] < 0.6 * good["sharpness"]
    assert blurred["face_sharpness"] < 0.6 * good["face_sharpness"]
    assert blurred["detail_cutoff"] < 0.6 * good["detail_cutoff"]
    assert squeezed["bits_per_pixel"] < 0.1 * good["bits_per_pixel"]
    assert squeezed["blockiness"] > good["blockiness"] + 0.2
    assert min(blurred["brisque"], squeezed["brisque"]) > good["brisque"] + 15
    assert good["vqa"] is None and good["height"] == 360


def test_the_face_is_measured_in_source_pixels(stage, portrait, encoded):
    frames = talk(portrait)[:25]
    once = measure(stage, encoded(frames))
    twice = measure(stage, encoded([cv2.resize(frame, None, fx=2, fy=2) for frame in frames]))
    assert 70 < once["face_size_px"] < 180
    assert twice["face_size_px"] == pytest.approx(2 * once["face_size_px"], rel=0.1)
    assert twice["face_luminance"] == pytest.approx(once["face_luminance"], rel=0.1)
    assert twice["face_sharpness"] < once["face_sharpness"] * 1.1
    assert twice["detail_cutoff"] < once["detail_cutoff"]


def test_without_a_face_only_the_face_has_no_value(stage, encoded):
    y, x = np.mgrid[:240, :320]
    plaid = np.uint8(127 + 60 * np.sin(x / 5) * np.cos(y / 7))
    values = measure(stage, encoded([np.dstack([plaid] * 3)] * 15))
    faceless = {name for name, value in values.items() if value is None}
    assert faceless == {
        *("face_size_px", "face_sharpness", "face_laplacian", "face_luminance"),
        *("vqa", "vqa_technical", "vqa_aesthetic"),
    }


def test_bars_are_measured_and_left_out(stage, portrait, encoded):
    framed = cv2.copyMakeBorder(portrait, 60, 60, 0, 0, cv2.BORDER_CONSTANT)
    values, plain = measure(stage, encoded([framed] * 10)), measure(stage, encoded([portrait] * 10))
    assert values["letterbox"] == pytest.approx(0.25, abs=0.01) and values["pillarbox"] == 0
    assert plain["letterbox"] == plain["pillarbox"] == 0
    assert values["luminance"] == pytest.approx(plain["luminance"], abs=2)


def test_exposure_counts_clipped_pixels(stage, portrait):
    still = portrait.copy()
    still[:90] = 255
    still[90:135] = 0
    media = ClipMedia(1, 480, 360, 25, stills=[still], still_times_s=np.array([0.5]), video_bytes=43200)
    values = measure(stage, OpenClip(None, media))
    assert values["bright_clipped"] == pytest.approx(0.25, abs=0.02)
    assert values["dark_clipped"] >= 0.124
    assert values["bits_per_pixel"] == pytest.approx(43200 * 8 / (480 * 360 * 25))


def test_no_still_or_a_tiny_one_has_no_answer(stage):
    for stills in ([], [np.zeros((16, 900, 3), np.uint8)]):
        (outcome,) = stage.score([OpenClip(None, ClipMedia(1, stills=stills, still_times_s=np.zeros(len(stills))))])
        assert isinstance(outcome, NotApplicable)


def test_a_black_clip_is_measured(stage):
    stills = [np.zeros((240, 320, 3), np.uint8)] * 2
    values = measure(stage, OpenClip(None, ClipMedia(1, 320, 240, 25, stills=stills, still_times_s=np.arange(2.0))))
    assert values["brisque"] is None and values["dark_clipped"] == 1 and values["letterbox"] == 0
    assert all(np.isfinite(value) for value in values.values() if value is not None)


def test_backends_name_their_weights():
    assert Quality(QualityConfig(backend="measures")).weights() == ("face_detector", "face_landmarks")
    assert Quality().weights()[2:] == ("brisque_model", "brisque_ranges")
    assert Quality(QualityConfig(backend="dover")).weights()[2:] == ("dover",)


def test_real_clips_keep_apart(shared, stage):
    folder = shared / "bench" / "clips"
    bad = measure(stage, open_clip(folder / "may__quality.mp4", 3))
    good = measure(stage, open_clip(folder / "may__keep.mp4", 3))
    assert bad["blockiness"] > 2 * good["blockiness"]
    assert bad["sharpness"] < 0.6 * good["sharpness"]
    assert bad["brisque"] > good["brisque"]
    assert good["face_size_px"] > 200
