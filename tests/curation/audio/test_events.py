from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from curation.audio.events import GROUPS, Events, EventsConfig, mono
from engine.stage import NotApplicable, Value
from media.clip import ClipMedia
from perception.cnn14 import Cnn14, audioset_classes
from perception.yamnet import read_classes

from .conftest import media_of, opened


@pytest.fixture(scope="module")
def stage(weights: Callable[..., dict[str, Path]]) -> Events:
    stage = Events()
    stage.setup(weights(*stage.weights()))
    return stage


def chords(seconds: float = 6.0) -> np.ndarray:
    """Plucked triads, two a second."""
    audio = np.zeros(round(seconds * 16_000) + 32_000)
    time = np.arange(16_000) / 16_000
    for k, root in enumerate([262, 349, 392, 262] * round(seconds / 2)):
        for ratio in (1, 1.26, 1.5):
            for harmonic in range(1, 6):
                note = np.sin(2 * np.pi * root * ratio * harmonic * time) * np.exp(-4 * harmonic * time) / harmonic
                audio[k * 8000 : k * 8000 + 16_000] += 0.1 * note
    return audio[: round(seconds * 16_000)]


def test_speech_music_and_silence_are_told_apart(stage: Events, interview_speech: np.ndarray):
    items = [opened(media_of(audio)) for audio in (interview_speech, chords(), np.zeros(48_000))]
    outcomes = stage.score(items)
    assert all(isinstance(outcome, Value) for outcome in outcomes)
    table = pa.Table.from_pylist([dict(outcome.values) for outcome in outcomes], schema=stage.values)
    speech, music, silence = table.to_pylist()
    assert speech["speech_median"] > 0.8
    assert speech["music_mean"] < 0.1
    assert music["music_mean"] > 0.3
    assert music["speech_max"] < 0.2
    assert max(silence["speech_max"], silence["music_max"]) < 0.1
    assert silence["others"][0] == "Silence"
    assert speech["others_max"] == sorted(speech["others_max"], reverse=True)
    assert len(speech["others"]) == len(speech["others_max"]) == 5


def test_series_follow_the_clip(stage: Events, interview_speech: np.ndarray):
    (outcome,) = stage.score([opened(media_of(np.concatenate([interview_speech[32_000:80_000], chords(3)])))])
    speech, music = outcome.values["speech_over_time"], outcome.values["music_over_time"]
    assert len(speech) == len(music) == 12  # 6 s: patches at 0, 0.48 … 5.28 s, the last padded
    assert min(speech[:4]) > 0.5 > max(speech[-4:])
    assert min(music[-4:]) > 0.4 > max(music[:4])
    assert outcome.values["speech_max"] == pytest.approx(max(speech))


def test_a_clip_without_audio_has_no_answer(stage: Events):
    assert stage.score([opened(ClipMedia(3.0))]) == [NotApplicable("no audio")]


def test_groups_name_classes_of_audioset(weights: Callable[..., dict[str, Path]]):
    names = audioset_classes(read_classes(weights("yamnet_classes")["yamnet_classes"]))
    assert {name for group in GROUPS.values() for name in group} <= set(names)


def test_the_panns_backend_runs_from_a_checkpoint(
    tmp_path: Path, weights: Callable[..., dict[str, Path]], interview_speech: np.ndarray
):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    checkpoint = tmp_path / "cnn14.pth"
    front_end = {"spectrogram_extractor.stft.conv_real.weight": torch.zeros(1)}
    torch.save({"model": Cnn14().state_dict() | front_end}, checkpoint)
    stage = Events(EventsConfig(backend="panns"))
    assert stage.weights() == ("panns_cnn14", "yamnet_classes")
    stage.setup(weights("yamnet_classes") | {"panns_cnn14": checkpoint})
    (outcome,) = stage.score([opened(media_of(interview_speech[:24_000]))])
    assert isinstance(outcome, Value)
    assert len(outcome.values["speech_over_time"]) == 3
    assert all(0 <= score <= 1 for score in outcome.values["speech_over_time"])


def test_mono_at_another_rate_keeps_length_and_level():
    stereo = np.stack([np.ones(44_100), np.zeros(44_100)]).astype(np.float32)
    media = ClipMedia(1.0, audio=stereo, audio_rate=44_100)
    audio = mono(media, 32_000)
    assert audio.shape == (32_000,)
    assert audio[1000:-1000] == pytest.approx(0.5, abs=0.01)
