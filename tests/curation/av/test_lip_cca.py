from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter1d

from curation.av import lip_cca
from curation.av.lip_cca import LIPS, MAX_LAG, MODEL_FILE, STILL, LipCca, align_lips, correlate, judge, load_lip_cca
from curation.av.lip_sync import LipSync
from curation.av.train_lip_cca import Sample, fit, main, mean_face, train

PER_FRAME = 640


def talker(seed: int, frames: int = 200, late: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A synthetic face ``[n, 468, 3]`` that nods and opens its mouth, and noise as loud as the mouth is open."""
    random = np.random.default_rng(seed)
    opening = gaussian_filter1d(random.standard_normal(frames + 100), 2)
    opening = opening / opening.std()
    face = np.random.default_rng(99).normal(0, 50, (468, 3))
    face[[234, 454]] = [[-90, 0, 0], [90, 0, 0]]  # the cheeks: it looks into the camera
    points = np.tile(face, (frames, 1, 1))
    points[:, LIPS[:20], 1] += 4 * opening[50 : 50 + frames, None]
    points = points @ turn(0.2 * np.sin(np.arange(frames) / 40)) + random.normal(0, 0.2, points.shape)
    loud = np.repeat(np.exp(opening[50 - late : 50 - late + frames]), PER_FRAME)
    points += np.array([300, 200, 0])
    return points, (0.02 * loud * random.standard_normal(frames * PER_FRAME)).astype(np.float32)


def turn(angle: np.ndarray | float) -> np.ndarray:
    angle = np.atleast_1d(angle)
    cos, sin, zero, one = np.cos(angle), np.sin(angle), 0 * angle, 0 * angle + 1
    return np.stack([cos, zero, sin, zero, one, zero, -sin, zero, cos], axis=1).reshape(-1, 3, 3)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return [Sample(f"{k}.mp4", f"family {k % 4}", 0, *talker(k)) for k in range(8)]


@pytest.fixture(scope="module")
def model(samples: list[Sample]) -> LipCca:
    return fit(samples, mean_face(samples))


@pytest.mark.parametrize("late", [-30, -10, -3, 0, 1, 20, 30])
def test_offset_of_an_unseen_talker(model: LipCca, late: int) -> None:
    found = lip_cca.estimate(model, *talker(50, late=late))
    assert found.offset == late
    assert found.offset_s == pytest.approx(late / 25, abs=0.02)
    assert found.evidence == pytest.approx(found.confidence * 200**0.5)
    assert found.curve.shape == (2 * MAX_LAG + 1,)
    assert found.curve[late + MAX_LAG] == found.curve.max()
    assert (found.sync_evidence == pytest.approx(found.evidence)) == (abs(late) <= 3)


def test_another_talkers_sound_leaves_little_evidence(model: LipCca) -> None:
    own = lip_cca.estimate(model, *talker(60))
    others = [lip_cca.estimate(model, talker(60)[0], talker(seed)[1]) for seed in range(61, 69)]
    assert max(other.evidence for other in others) < 0.6 * own.evidence


def test_a_track_that_begins_later(model: LipCca) -> None:
    landmarks, speech = talker(51, late=5)
    assert lip_cca.estimate(model, landmarks[60:], speech, start=60).offset == 5


def test_padding_of_a_retimed_track_is_no_sound(model: LipCca) -> None:
    landmarks, speech = talker(52)
    moved = lip_cca.move_audio(speech, -0.8)
    assert not moved[: 20 * PER_FRAME].any()
    assert lip_cca.estimate(model, landmarks, moved).offset == 20
    first, _ = lip_cca.sound_series(model, moved)
    assert first == 20


def test_moving_the_audio_by_the_offset_repairs_it(model: LipCca) -> None:
    landmarks, speech = talker(53, late=-12)
    found = lip_cca.estimate(model, landmarks, speech)
    repaired = lip_cca.estimate(model, landmarks, lip_cca.move_audio(speech, found.offset_s))
    assert (found.offset, repaired.offset) == (-12, 0)


@given(gain=st.floats(0.01, 10))
@settings(max_examples=10, deadline=None)
def test_loudness_does_not_matter(gain: float) -> None:
    speech = talker(54, frames=60)[1]
    np.testing.assert_allclose(lip_cca.mel_spectra(gain * speech), lip_cca.mel_spectra(speech), atol=1e-2)


@given(scale=st.floats(0.2, 5), angle=st.floats(-1, 1), x=st.floats(-500, 500), y=st.floats(-500, 500))
@settings(max_examples=25, deadline=None)
def test_place_size_and_pose_of_the_head_do_not_matter(scale: float, angle: float, x: float, y: float) -> None:
    landmarks = talker(55, frames=5)[0]
    face = landmarks[0, STILL] - landmarks[0, STILL].mean(0)
    moved = scale * (landmarks @ turn(angle)) + [x, y, 0]
    np.testing.assert_allclose(align_lips(moved, face), align_lips(landmarks, face), atol=1e-6 * 500)


def test_frames_without_a_face_are_bridged() -> None:
    landmarks = talker(56, frames=30)[0]
    face = landmarks[0, STILL] - landmarks[0, STILL].mean(0)
    holes = landmarks.copy()
    holes[10:12] = np.nan
    whole, bridged = align_lips(landmarks, face), align_lips(holes, face)
    np.testing.assert_allclose(np.delete(bridged, [10, 11], 0), np.delete(whole, [10, 11], 0))
    np.testing.assert_allclose(bridged[10], whole[9] + (whole[12] - whole[9]) / 3)


@given(lag=st.integers(-MAX_LAG, MAX_LAG), start=st.integers(0, 50), frames=st.integers(80, 150))
@settings(max_examples=30, deadline=None)
def test_correlation_peaks_at_the_lag(lag: int, start: int, frames: int) -> None:
    series = np.random.default_rng(0).standard_normal((400, 3))
    lips = series[100 + start : 100 + start + frames]
    curve = correlate(lips, series[100 - lag : 380], np.array([3.0, 2.0, 1.0]), start)
    assert int(curve.argmax()) - MAX_LAG == lag
    assert np.abs(curve).max() <= 1 + 1e-9


def test_no_sound_is_no_evidence(model: LipCca) -> None:
    landmarks = talker(57)[0]
    for speech in (np.zeros(0, np.float32), np.zeros(200 * PER_FRAME, np.float32)):
        found = lip_cca.estimate(model, landmarks, speech)
        assert (found.confidence, found.evidence) == (0, 0)
        assert not replace(model, floor_in_sync=1.0, floor_offset=1.0).is_clear(found)


def test_a_clear_peak_needs_more_evidence_away_from_sync(model: LipCca) -> None:
    curve = np.zeros(2 * MAX_LAG + 1)
    strict = replace(model, floor_in_sync=2.0, floor_offset=3.0)
    near, far = curve.copy(), curve.copy()
    near[MAX_LAG + 1] = far[MAX_LAG + 9] = 0.25
    assert strict.is_clear(judge(near, 100))
    assert not strict.is_clear(judge(far, 100))
    assert strict.is_clear(judge(far, 150))


def test_training_takes_the_clips_own_offsets_off() -> None:
    late = {0: 3, 3: -4}
    samples = [Sample(f"{k}.mp4", f"family {k % 3}", 0, *talker(k, 150, late.get(k, 0))) for k in range(6)]
    model, validation = train(samples)
    assert lip_cca.estimate(model, *talker(70)).offset == 0
    assert 0 < model.floor_in_sync <= model.floor_offset
    summary = validation.summary()
    assert summary["in sync: offset within 2 frames"] == 1
    assert summary["AUC in sync against shifted and swapped"] > 0.95
    assert summary["shifted accepted"] <= 0.02


def test_stored_model_is_the_same(model: LipCca, tmp_path) -> None:
    model.save(tmp_path / "model.npz")
    stored = load_lip_cca(tmp_path / "model.npz")
    landmarks, speech = talker(71)
    assert lip_cca.estimate(stored, landmarks, speech).evidence == pytest.approx(
        lip_cca.estimate(model, landmarks, speech).evidence
    )


def test_a_new_model_raises_the_stages_version() -> None:
    """The model is part of the code: whoever trains it again raises LipSync.version and writes both here."""
    digest = hashlib.sha256(MODEL_FILE.read_bytes()).hexdigest()[:16]
    assert (LipSync.version, digest) == ("1", "531955b904b001fb")


def test_training_says_which_clip_is_missing(tmp_path, capsys) -> None:
    offsets = tmp_path / "offsets.tsv"
    offsets.write_text("file\taudio_late_frames_25fps_estimate\torigin\nnowhere.mp4\t0\ta/b/c/d\n")
    assert main(["--clips", str(tmp_path), "--offsets", str(offsets), "--out", str(tmp_path / "out.npz")]) == 2
    assert "nowhere.mp4" in capsys.readouterr().err
    assert main(["--clips", str(tmp_path), "--offsets", str(tmp_path / "none.tsv"), "--out", "x.npz"]) == 2
