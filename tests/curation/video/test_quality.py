from __future__ import annotations

import cv2
import numpy as np
import pytest

from curation.video import picture
from curation.video.brisque import Brisque
from curation.video.dover import Dover, pieces_view, whole_view
from curation.video.quality import Quality, QualityConfig
from engine.stage import NotApplicable, OpenClip, Value
from media.clip import ClipMedia
from tests.curation.video.conftest import talk


@pytest.fixture(scope="module")
def stage(weights) -> Quality:
    quality = Quality()
    quality.setup(weights(*quality.weights()))
    return quality


@pytest.fixture(scope="module")
def brisque(weights) -> Brisque:
    return Brisque(*weights("brisque_model", "brisque_ranges").values())


@pytest.fixture(scope="module")
def grey(portrait) -> np.ndarray:
    return cv2.cvtColor(portrait, cv2.COLOR_RGB2GRAY)


def measure(stage: Quality, clip: OpenClip) -> dict:
    (outcome,) = stage.score([clip])
    assert isinstance(outcome, Value), outcome
    assert set(outcome.values) == set(Quality.values.names)
    return dict(outcome.values)


def enlarged(image: np.ndarray, factor: int, how: int = cv2.INTER_CUBIC) -> np.ndarray:
    small = cv2.resize(image, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, image.shape[1::-1], interpolation=how)


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
    waves = np.uint8(127 + 60 * np.sin(x / 5) * np.cos(y / 7))
    values = measure(stage, encoded([np.dstack([waves] * 3)] * 15))
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


def test_no_picture_or_a_tiny_one_has_no_answer(stage):
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


def test_bars_need_a_straight_edge(grey):
    framed = cv2.copyMakeBorder(grey, 0, 0, 40, 20, cv2.BORDER_CONSTANT, value=5)
    assert picture.bars([framed, framed]) == (0, 0, 40, 20)
    night = np.uint8(grey * np.linspace(0, 1, len(grey))[:, None] ** 3)  # dark above, without an edge
    assert picture.bars([night])[0] == 0
    assert picture.bars([np.zeros_like(grey)]) == (0, 0, 0, 0)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_the_cutoff_of_an_enlarged_picture_is_where_its_detail_ends(factor):
    rng = np.random.default_rng(1)
    frequency = np.hypot(np.fft.fftfreq(512)[:, None], np.fft.rfftfreq(512)[None])
    natural = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(512, 512))) / np.maximum(frequency, 1 / 512))
    image = np.uint8(np.clip(128 + 40 * natural / natural.std(), 0, 255))
    assert picture.cutoff(picture.spectrum([image])) == 0.5
    found = picture.cutoff(picture.spectrum([enlarged(image, factor)]))
    assert 0.45 / factor < found < 0.68 / factor


def test_blockiness_is_of_the_grid_alone(grey):
    blocks = enlarged(grey, 8, cv2.INTER_NEAREST)
    assert picture.blockiness(grey) < 0.3
    assert picture.blockiness(blocks) > 2
    assert picture.blockiness(np.roll(blocks, 3, axis=1)) > 2


@pytest.mark.parametrize("deviation", [2.0, 6.0])
def test_noise_is_estimated(grey, deviation):
    smooth = cv2.GaussianBlur(grey, (0, 0), 4)
    noisy = smooth + np.random.default_rng(2).normal(0, deviation, grey.shape)
    assert picture.noise(np.uint8(noisy.clip(0, 255))) == pytest.approx(deviation, rel=0.25)


def test_brisque_ranks_every_degradation_below_the_original(brisque, grey):
    original = brisque(grey)
    quality = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, 8])[1]
    noisy = np.uint8((grey + np.random.default_rng(3).normal(0, 25, grey.shape)).clip(0, 255))
    for worse in (cv2.GaussianBlur(grey, (0, 0), 2), enlarged(grey, 4), cv2.imdecode(quality, 0), noisy):
        assert brisque(worse) > original + 10
    assert -20 < original < 50
    assert brisque(np.full((64, 64), 90, np.uint8)) is None
    assert brisque(grey[:20]) is None


def test_brisque_never_runs_its_pickle(tmp_path, weights):
    trap, ran = tmp_path / "ranges.pickle", tmp_path / "ran"
    trap.write_bytes(b"cos\nsystem\n(S'touch " + str(ran).encode() + b"'\ntR.")
    with pytest.raises(ValueError, match="72 numbers"):
        Brisque(weights("brisque_model")["brisque_model"], trap)
    assert not ran.exists()


@pytest.mark.parametrize("shape", [(40, 96, 160, 3), (100, 360, 640, 3)])
def test_dover_views(shape):
    frames = np.random.default_rng(4).integers(0, 255, shape).astype(np.uint8)
    assert whole_view(frames).shape == (1, 3, 32, 224, 224)
    views = pieces_view(frames, 4)
    assert views.shape == (4, 3, 32, 224, 224) and views.dtype == np.float32
    if shape[1] > 224:
        # The first piece is the middle of the first cell of the first picture, untouched.
        top, left = (360 // 7 - 32) // 2, (640 // 7 - 32) // 2
        expected = (frames[0, top, left] - np.array([123.675, 116.28, 103.53])) / [58.395, 57.12, 57.375]
        np.testing.assert_allclose(views[0, :, 0, 0, 0], expected, rtol=1e-5)


def test_dover_answers_its_columns(monkeypatch):
    class Session:
        def get_inputs(self):
            return [
                type("Input", (), {"name": name, "shape": [2, 3, 32, 224, 224]}) for name in ("aes_view", "tech_view")
            ]

        def run(self, _, views):
            assert views["tech_view"].shape[0] == 2
            return [np.array([0.08285]), np.array([0.1107])]

    monkeypatch.setattr("curation.video.dover.onnxruntime.InferenceSession", lambda *_, **__: Session())
    values = Dover("dover.onnx", ["CPUExecutionProvider"])(np.zeros((50, 90, 160, 3), np.uint8))
    assert values == {"vqa": 0.5, "vqa_technical": pytest.approx(0.1107), "vqa_aesthetic": pytest.approx(0.08285)}
    assert tuple(values) == Dover.columns


def test_real_clips_keep_apart(shared, stage):
    from tests.curation.video.conftest import open_clip

    folder = shared / "bench" / "clips"
    bad = measure(stage, open_clip(folder / "may__quality.mp4", 3))
    good = measure(stage, open_clip(folder / "may__keep.mp4", 3))
    assert bad["blockiness"] > 2 * good["blockiness"]
    assert bad["sharpness"] < 0.6 * good["sharpness"]
    assert bad["brisque"] > good["brisque"]
    assert good["face_size_px"] > 200
