from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception import lip_cca
from perception.lip_cca import MAX_LAG, STILL, LipCca, align_lips, correlate, load_lip_cca, read_curve
from perception.train_lip_cca import fit, mean_face
from tests.perception.synthetic_talkers import PER_FRAME, talker, training_clips, turn


@pytest.fixture(scope="module")
def model() -> LipCca:
    clips = training_clips()
    return fit(clips, mean_face(clips))


@pytest.mark.parametrize("late", [-30, -10, -3, 0, 1, 20, 30])
def test_offset_of_an_unseen_talker(model: LipCca, late: int) -> None:
    found = lip_cca.estimate(model, *talker(50, late=late))
    assert found.offset == late
    assert found.offset_s == pytest.approx(late / 25, abs=0.02)
    assert found.evidence == pytest.approx(found.confidence * 200**0.5)
    assert found.curve.shape == (2 * MAX_LAG + 1,)
    assert found.curve[late + MAX_LAG] == found.curve.max()
    assert (found.sync_evidence == pytest.approx(found.evidence)) == (abs(late) <= 3)


def test_another_talkers_audio_leaves_little_evidence(model: LipCca) -> None:
    own = lip_cca.estimate(model, *talker(60))
    others = [lip_cca.estimate(model, talker(60)[0], talker(seed)[1]) for seed in range(61, 69)]
    assert max(other.evidence for other in others) < 0.6 * own.evidence


def test_a_track_that_begins_later(model: LipCca) -> None:
    landmarks, speech = talker(51, late=5)
    assert lip_cca.estimate(model, landmarks[60:], speech, start=60).offset == 5


def test_padding_of_a_retimed_track_is_no_audio(model: LipCca) -> None:
    landmarks, speech = talker(52)
    moved = lip_cca.move_audio(speech, -0.8)
    assert not moved[: 20 * PER_FRAME].any()
    assert lip_cca.estimate(model, landmarks, moved).offset == 20
    first, _ = lip_cca.audio_series(model, moved)
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


def test_no_audio_is_no_evidence(model: LipCca) -> None:
    landmarks = talker(57)[0]
    for speech in (np.zeros(0, np.float32), np.zeros(200 * PER_FRAME, np.float32)):
        found = lip_cca.estimate(model, landmarks, speech)
        assert (found.confidence, found.evidence) == (0, 0)


def test_stored_model_is_the_same(model: LipCca, tmp_path) -> None:
    model.save(tmp_path / "model.npz")
    stored = load_lip_cca(tmp_path / "model.npz")
    landmarks, speech = talker(71)
    assert lip_cca.estimate(stored, landmarks, speech).evidence == pytest.approx(
        lip_cca.estimate(model, landmarks, speech).evidence
    )


def test_a_curve_gives_its_peak_and_how_far_it_stands_out() -> None:
    curve = np.zeros(2 * MAX_LAG + 1)
    curve[MAX_LAG + 9] = 0.25
    found = read_curve(curve, 100)
    assert (found.offset, found.confidence, found.evidence, found.sync_evidence) == (9, 0.25, 2.5, 0.0)
