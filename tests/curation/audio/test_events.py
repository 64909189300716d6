from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curation.audio.cnn14 import audioset_classes
from curation.audio.events import GROUPS, Events, mono
from curation.audio.yamnet import Yamnet, patches, read_classes
from engine.stage import NotApplicable, Value
from media.clip import ClipMedia

from .conftest import media_of, opened


@pytest.fixture(scope="module")
def stage(weights: Callable[..., dict[str, Path]]) -> Events:
    stage = Events()
    stage.setup(weights(*stage.weights()))
    return stage


def chords(seconds: float = 6.0) -> np.ndarray:
    """Plucked triads, two a second."""
    sound = np.zeros(round(seconds * 16_000) + 32_000)
    time = np.arange(16_000) / 16_000
    for k, root in enumerate([262, 349, 392, 262] * round(seconds / 2)):
        for ratio in (1, 1.26, 1.5):
            for harmonic in range(1, 6):
                note = np.sin(2 * np.pi * root * ratio * harmonic * time) * np.exp(-4 * harmonic * time) / harmonic
                sound[k * 8000 : k * 8000 + 16_000] += 0.1 * note
    return sound[: round(seconds * 16_000)]


def test_speech_music_and_silence_are_told_apart(stage: Events, interview: np.ndarray):
    items = [opened(media_of(sound)) for sound in (interview, chords(), np.zeros(48_000))]
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


def test_series_follow_the_clip(stage: Events, interview: np.ndarray):
    (outcome,) = stage.score([opened(media_of(np.concatenate([interview[32_000:80_000], chords(3)])))])
    speech, music = outcome.values["speech_over_time"], outcome.values["music_over_time"]
    assert len(speech) == len(music) == 12  # 6 s: patches at 0, 0.48 … 5.28 s, the last padded
    assert min(speech[:4]) > 0.5 > max(speech[-4:])
    assert min(music[-4:]) > 0.4 > max(music[:4])
    assert outcome.values["speech_max"] == pytest.approx(max(speech))


def test_a_clip_without_audio_has_no_answer(stage: Events):
    assert stage.score([opened(ClipMedia(3.0))]) == [NotApplicable("no audio")]


@pytest.mark.parametrize(("seconds", "count"), [(0.1, 1), (0.96, 1), (1.0, 2), (1.44, 2), (5.0, 10)])
def test_sound_is_padded_to_whole_patches(seconds: float, count: int):
    made = patches(np.ones(round(seconds * 16_000), np.float32))
    assert made.shape == (count, 96, 64)
    assert np.isfinite(made).all()


def test_a_tone_lies_in_its_mel_band():
    for hertz, band in ((440, 8), (1000, 20), (3000, 42)):
        spectrum = patches(np.sin(2 * np.pi * hertz * np.arange(32_000) / 16_000).astype(np.float32))[0].mean(0)
        assert abs(int(spectrum.argmax()) - band) <= 1


def test_the_full_list_has_audiosets_classes(weights: Callable[..., dict[str, Path]]):
    yamnet = read_classes(weights("yamnet_classes")["yamnet_classes"])
    names = audioset_classes(yamnet)
    assert len(yamnet) == 521
    assert len(set(names)) == len(names) - (len(yamnet) - len(set(yamnet))) == 527
    known = {0: "Speech", 16: "Laughter", 27: "Singing", 40: "Whistling", 137: "Music", 283: "Wind", 500: "Silence"}
    assert {index: names[index] for index in known} == known
    assert names[526] == "Field recording"
    assert {name for group in GROUPS.values() for name in group} <= set(names)


def test_the_int8_export_agrees_with_the_published_float_model(shared: Path, weights: Callable[..., dict[str, Path]]):
    from ai_edge_litert.interpreter import Interpreter

    from media.decode import decode_clip

    reference = Interpreter(str(shared / "weights" / "yamnet_classification.tflite"), num_threads=1)
    reference.allocate_tensors()
    (source,), (target,) = reference.get_input_details(), reference.get_output_details()[:1]
    tagger = Yamnet(weights("yamnet")["yamnet"], weights("yamnet_classes")["yamnet_classes"])
    for name in ("vr2__keep.mp4", "night__music.mp4"):
        sound = decode_clip(str(shared / "bench" / "clips" / name), 0, 4, needs=frozenset({"audio"})).speech
        expected = []
        for start in range(0, len(sound) - 15_600, 7680):
            reference.set_tensor(source["index"], sound[start : start + 15_600])
            reference.invoke()
            expected.append(reference.get_tensor(target["index"])[0].copy())
        scores = tagger(sound)[: len(expected)]
        assert np.corrcoef(scores.ravel(), np.ravel(expected))[0, 1] > 0.98


def test_mono_at_another_rate_keeps_length_and_level():
    stereo = np.stack([np.ones(44_100), np.zeros(44_100)]).astype(np.float32)
    media = ClipMedia(1.0, audio=stereo, audio_rate=44_100)
    sound = mono(media, 32_000)
    assert sound.shape == (32_000,)
    assert sound[1000:-1000] == pytest.approx(0.5, abs=0.01)
