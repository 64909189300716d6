"""Pronunciation by dictionary, and Kokoro's voice."""

from __future__ import annotations

import numpy as np
import pytest

from perception.speech_synthesis import RATE, WEIGHTS, Speech, SpeechError


@pytest.fixture(scope="module")
def voice(weights) -> Speech:
    return Speech(weights(*WEIGHTS))


def test_function_words_are_weak_and_depend_on_what_follows(voice: Speech) -> None:
    assert voice.phonemes("the moon") == "ðə mˈun"
    assert voice.phonemes("the apple").startswith("ði ")
    assert voice.phonemes("A river, and home.").startswith("ɐ ɹˈɪvəɹ, ənd ")


def test_an_unknown_word_is_named(voice: Speech) -> None:
    with pytest.raises(SpeechError, match="'xyzzyq', '7'"):
        voice.phonemes("the xyzzyq is 7 old")


def test_an_unknown_voice_is_named_with_those_there_are(voice: Speech) -> None:
    with pytest.raises(SpeechError, match=r"nobody.*jf_alpha"):
        voice.say("good morning", "nobody")


def test_too_long_a_text_is_refused(voice: Speech) -> None:
    with pytest.raises(SpeechError, match="split the text"):
        voice.say("good morning " * 60, voice.voices[0])


def test_speech_is_loud_lasts_as_long_as_words_do_and_repeats(voice: Speech) -> None:
    audio = voice.say("good morning", "jf_alpha")
    assert audio.dtype == np.float32
    assert audio.ndim == 1
    assert 0.5 < len(audio) / RATE < 3
    assert 0.1 < np.abs(audio).max() < 1.5
    np.testing.assert_array_equal(audio, voice.say("good morning", "jf_alpha"))
