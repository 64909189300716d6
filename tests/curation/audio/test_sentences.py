from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curation.audio.sentences import Sentences
from engine.stage import NotApplicable, Value
from media.clip import ClipMedia

from .conftest import media_of, opened


@pytest.fixture
def stage(weights: Callable[..., dict[str, Path]]) -> Sentences:
    stage = Sentences()
    stage.setup(weights(*stage.weights()))
    return stage


def values_of(stage: Sentences, speech: np.ndarray) -> dict:
    (outcome,) = stage.score([opened(media_of(speech))])
    assert isinstance(outcome, Value)
    pa.Table.from_pylist([dict(outcome.values)], schema=stage.values)
    return dict(outcome.values)


def test_speech_silence_speech(stage: Sentences, interview_speech: np.ndarray):
    piece = interview_speech[2 * 16_000 : 56_000 + 2 * 16_000]
    values = values_of(stage, np.concatenate([piece, np.zeros(2 * 16_000), piece]))
    first, second = values["intervals"][0], values["intervals"][-1]
    assert values["sentence_count"] == len(values["intervals"]) >= 2
    assert first["end_s"] < 3.6
    assert second["end_s"] > 8
    assert 1.8 < values["longest_gap_s"] < 2.8
    assert values["speech_ratio"] == pytest.approx(values["speech_s"] / 9)
    assert 0.4 < values["speech_ratio"] < 0.8
    lengths = [interval["end_s"] - interval["start_s"] for interval in values["intervals"]]
    assert values["longest_sentence_s"] == pytest.approx(max(lengths))


def test_silence_is_a_value_without_speech(stage: Sentences):
    values = values_of(stage, np.zeros(3 * 16_000))
    assert (values["intervals"], values["sentence_count"], values["speech_ratio"]) == ([], 0, 0)
    assert values["longest_gap_s"] == pytest.approx(3)
    assert values["longest_sentence_s"] == 0
    assert values["mean_probability"] < 0.1


def test_a_clip_without_audio_has_no_answer(stage: Sentences):
    assert stage.score([opened(ClipMedia(3.0))]) == [NotApplicable("no audio")]
