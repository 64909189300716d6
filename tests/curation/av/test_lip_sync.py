from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch

from curation.av.lip_sync import LipSync, LipSyncConfig, is_clear
from engine.items import Clip
from engine.stage import NotApplicable, OpenClip, Outcome, Value
from media.clip import ClipMedia
from media.decode import decode_clip
from media.planes import Planes
from media.probe import probe
from perception import lip_cca, syncnet
from perception.lip_cca import MAX_LAG, MODEL_FILE, LipCca, read_curve
from perception.tracks import FaceTrack
from perception.train_lip_cca import fit, mean_face
from tests.perception.synthetic_talkers import PER_FRAME, talker, training_clips

CLIP = Clip("key", "clip.mp4", "content", 0.0, 8.0, 640, 480, 25.0, 16_000)


@pytest.fixture(scope="module")
def stage() -> LipSync:
    """The stage with an estimator trained on synthetic talkers, and faces and speech given by each test."""
    clips = training_clips()
    stage = LipSync()
    stage._model = replace(fit(clips, mean_face(clips)), floor_in_sync=3.0, floor_offset=3.6)
    stage._net = None
    return stage


def track_of(landmarks: np.ndarray, first: int = 0) -> FaceTrack:
    frames = np.arange(first, first + len(landmarks))
    boxes = np.concatenate([landmarks[:, :, :2].min(1), landmarks[:, :, :2].max(1)], axis=1).astype(np.float32)
    return FaceTrack(frames, boxes, np.ones(len(frames), np.float32), landmarks.astype(np.float32))


def scored(stage: LipSync, tracks: list[FaceTrack], speech: np.ndarray, intervals=((0.0, 8.0),)) -> Outcome:
    stage._tracker = SimpleNamespace(track=lambda frames: tracks)
    stage._detector = SimpleNamespace(probabilities=lambda speech: np.ones(len(speech) // 512 + 1))
    count = 1 + max((int(track.frames[-1]) for track in tracks), default=199)
    media = ClipMedia(8.0, planes=Planes(np.zeros((count, 8, 8, 3), np.uint8)), speech=speech, audio_rate=16_000)
    media.derive("speech_intervals", lambda media: list(intervals))
    (outcome,) = stage.score([OpenClip(CLIP, media)])
    if isinstance(outcome, Value):
        assert set(outcome.values) == set(LipSync.values.names)
        pa.Table.from_pylist([dict(outcome.values)], schema=LipSync.values)
    return outcome


def test_in_sync(stage: LipSync) -> None:
    landmarks, speech = talker(20)
    values = scored(stage, [track_of(landmarks)], speech).values
    assert (values["estimator"], values["answer"], values["undecided"]) == ("lip_cca", "in_sync", [])
    assert (values["offset_frames"], values["residual_offset_frames"], values["repaired_strength"]) == (0, None, None)
    assert values["sync_evidence"] == pytest.approx(values["evidence"])
    assert (values["sync_c"], values["sync_d"]) == (None, None)
    assert values["offset_over_time"] == [0.0] * 4
    assert values["usable_s"] == pytest.approx(8.0)


@pytest.mark.parametrize("late", [-20, -10, 10, 30])
def test_offset_and_its_repair(stage: LipSync, late: int) -> None:
    landmarks, speech = talker(21, late=late)
    values = scored(stage, [track_of(landmarks)], speech).values
    assert (values["answer"], values["offset_frames"]) == ("offset", late)
    assert values["residual_offset_frames"] == 0
    assert values["repaired_strength"] > 3


def test_anothers_speech_is_undecided(stage: LipSync) -> None:
    values = scored(stage, [track_of(talker(22)[0])], talker(23)[1]).values
    assert (values["answer"], values["undecided"]) == ("undecided", ["no_peak"])


def test_why_it_is_undecided(stage: LipSync) -> None:
    landmarks, speech = talker(24)
    assert scored(stage, [track_of(landmarks)], speech, [(1.0, 3.5)]).values["undecided"] == ["short"]
    turned = landmarks @ np.array([[0.5, 0, 0.866], [0, 1, 0], [-0.866, 0, 0.5]])
    assert "yaw" in scored(stage, [track_of(turned)], speech).values["undecided"]
    noise = 0.1 * np.random.default_rng(0).standard_normal(len(speech)).astype(np.float32)
    noisy = scored(stage, [track_of(landmarks)], 0.001 * speech + noise).values
    assert "snr" in noisy["undecided"]
    assert noisy["answer"] == "undecided"


def test_no_meaning_without_audio_speech_or_face(stage: LipSync) -> None:
    landmarks, speech = talker(25)
    track = track_of(landmarks)
    for outcome, reason in (
        (scored(stage, [track], speech[:0]), "no audio"),
        (scored(stage, [track], speech, ()), "no speech"),
        (scored(stage, [], speech), "no face"),
        (scored(stage, [track_of(landmarks, first=190)], speech), None),
        (scored(stage, [track_of(landmarks, first=196)], speech), "the sound ends before the face appears"),
    ):
        assert reason is None or outcome == NotApplicable(reason)


def test_the_face_that_talks_is_compared(stage: LipSync) -> None:
    landmarks, speech = talker(26)
    still = np.tile(landmarks[:1], (200, 1, 1))
    values = scored(stage, [track_of(still * 1.5), track_of(landmarks)], speech).values
    assert (values["track"], values["answer"]) == (1, "in_sync")


@pytest.fixture(scope="module")
def strict() -> LipCca:
    """A model without directions, of which only the floors are read."""
    return LipCca(*[np.zeros(0, np.float32)] * 4, floor_in_sync=2.0, floor_offset=3.0)


def test_a_clear_peak_needs_more_evidence_away_from_sync(strict: LipCca) -> None:
    near, far = np.zeros((2, 2 * MAX_LAG + 1))
    near[MAX_LAG + 1] = far[MAX_LAG + 9] = 0.25
    assert is_clear(strict, read_curve(near, 100))
    assert not is_clear(strict, read_curve(far, 100))
    assert is_clear(strict, read_curve(far, 150))


def test_no_audio_is_no_clear_peak(stage: LipSync) -> None:
    for speech in (np.zeros(0, np.float32), np.zeros(200 * PER_FRAME, np.float32)):
        found = lip_cca.estimate(stage._model, talker(57)[0], speech)
        assert not is_clear(replace(stage._model, floor_in_sync=1.0, floor_offset=1.0), found)


def test_a_new_model_raises_the_stages_version() -> None:
    """The model is part of the code: whoever trains it again raises LipSync.version and writes both here."""
    digest = hashlib.sha256(MODEL_FILE.read_bytes()).hexdigest()[:16]
    assert (LipSync.version, digest) == ("1", "58e3ea92e5f21db8")


class Echo(torch.nn.Module):
    """Stands for SyncNet: lips and audio that carry the same number are near."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def encode_lips(self, windows: torch.Tensor) -> torch.Tensor:
        return windows[:, :1, 0, 100, 100] / 10 * torch.ones(1, 4)

    def encode_audio(self, windows: torch.Tensor) -> torch.Tensor:
        return windows[:, 0, :1, 2] * torch.ones(1, 4)


def test_syncnet_fills_its_own_columns(stage: LipSync, monkeypatch: pytest.MonkeyPatch) -> None:
    landmarks, speech = talker(27)
    hidden = np.random.default_rng(3).integers(0, 250, 240)
    monkeypatch.setattr(
        syncnet,
        "crop_track",
        lambda frames, boxes: np.tile(hidden[20:100, None, None, None].astype(np.uint8), (1, 224, 224, 3)),
    )
    monkeypatch.setattr(
        "curation.av.lip_sync.mfcc",
        lambda samples: np.repeat(hidden[20 - 6 : 220 - 6] / 10, 4)[:-1, None] * np.ones(13),
    )
    other = LipSync(LipSyncConfig(backend="syncnet"))
    other._model, other._net = stage._model, Echo()
    values = scored(other, [track_of(landmarks[:80])], speech).values
    assert (values["estimator"], values["offset_frames"], len(values["curve"])) == ("syncnet", 6, 31)
    assert int(np.argmax(values["curve"])) == 15 + 6
    assert values["sync_c"] == pytest.approx(np.max(values["curve"]) - np.median(values["curve"]), rel=1e-4)
    assert values["sync_d"] == pytest.approx(-np.max(values["curve"]), rel=1e-4)
    assert values["confidence"] is values["evidence"] is values["sync_evidence"] is None


def test_weights_that_are_asked_for() -> None:
    assert "syncnet" not in LipSync().weights()
    assert "syncnet" in LipSync(LipSyncConfig(backend="syncnet")).weights()


@pytest.mark.parametrize(
    ("name", "offset"), [("vr4__keep.mp4", 0), ("rostrum__shifted.mp4", -10), ("lectern__shifted.mp4", -20)]
)
def test_real_talkers(shared: Path, weights, name: str, offset: int) -> None:
    stage = LipSync()
    stage.setup(weights(*stage.weights()))
    path = str(shared / "bench" / "clips" / name)
    media = decode_clip(path, 0.0, probe(path).duration_s, needs=stage.needs)
    (outcome,) = stage.score([OpenClip(CLIP, media)])
    assert outcome.values["offset_frames"] == pytest.approx(offset, abs=2)
    assert outcome.values["answer"] in ("in_sync" if not offset else "offset", "undecided")
    assert media.speech.size >= PER_FRAME
