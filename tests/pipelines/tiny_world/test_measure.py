"""What is planted is measured: on the world's own pixels and samples, and on spoilt ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipelines.tiny_world import measure
from pipelines.tiny_world.face import draw
from pipelines.tiny_world.voice import LEVEL, RATE, speak
from pipelines.tiny_world.world import PITCH_HZ, WORDS, Syllable, Utterance, Voice, make_clip

CLIPS = [make_clip(0, "train", number) for number in range(24)]


@pytest.fixture(scope="module")
def videos() -> list[np.ndarray]:
    return [draw(clip.look, clip.speech) for clip in CLIPS]


@pytest.fixture(scope="module")
def waveforms() -> list[np.ndarray]:
    return [speak(clip.speech, clip.voice) for clip in CLIPS]


def test_the_voice_is_measured(waveforms):
    heard = [measure.hear(audio).voice for audio in waveforms]
    pitches = [abs(h.pitch - clip.voice.pitch) for h, clip in zip(heard, CLIPS)]
    timbres = [abs(h.timbre - clip.voice.timbre) for h, clip in zip(heard, CLIPS)]
    assert max(pitches) < 0.01 and max(timbres) < 0.06


@pytest.mark.parametrize("pitch", [0.0, 0.5, 1.0])
def test_pitch_is_found_at_both_ends_of_its_range(pitch):
    voice = Voice(pitch, 0.5)
    said = Utterance(tuple(Syllable(word, 0.3 * n, 0.3, 1.0) for n, word in enumerate(WORDS)), 1.8)
    assert measure.pitch_hz(speak(said, voice)) == pytest.approx(
        PITCH_HZ[0] * (PITCH_HZ[1] / PITCH_HZ[0]) ** pitch, rel=2e-3
    )


def test_words_are_heard_and_seen(videos, waveforms):
    for clip, frames, audio in zip(CLIPS, videos, waveforms):
        assert measure.hear(audio).words == clip.speech.words
        middles = [s.start_s + s.seconds / 2 for s in clip.speech.syllables]
        assert measure.words_seen(frames, middles) == clip.speech.words


def test_the_envelope_is_the_loudness(waveforms):
    for clip, audio in zip(CLIPS, waveforms):
        envelope = measure.envelope(audio)
        assert len(envelope) == 68
        truth = LEVEL * clip.speech.loudness((np.arange(68) + 0.5) / measure.ENVELOPE_HZ)
        assert np.corrcoef(envelope, truth)[0, 1] > 0.99 and np.abs(envelope - truth).max() < 0.25 * LEVEL


def test_mouth_and_audio_agree_only_in_their_own_clip(videos, waveforms):
    envelopes = np.stack([measure.envelope(audio) for audio in waveforms])
    openings = np.stack([measure.opening(frames, 68) for frames in videos])
    profile = measure.Profile.of(envelopes, openings)
    assert profile.correlations(envelopes, openings).mean() > 0.95
    assert abs(profile.correlations(envelopes, np.roll(openings, 1, 0)).mean()) < 0.25
    assert profile.lag_s(envelopes, openings) == 0
    late = np.roll(openings, 3, 1)
    assert profile.lag_s(envelopes, late) == pytest.approx(3 / measure.ENVELOPE_HZ)


def test_the_look_is_seen_even_through_noise(videos):
    rng = np.random.default_rng(0)
    for clip, frames in zip(CLIPS, videos):
        found, distance = measure.look(frames)
        assert found == clip.look and distance < 0.01
        noisy = np.clip(frames + rng.normal(0, 20, frames.shape), 0, 255).astype(np.uint8)
        assert measure.look(noisy)[0] == clip.look


def test_flicker_is_that_of_the_wall(videos):
    assert max(measure.flicker(frames) for frames in videos) < 1e-6
    changed = videos[0].astype(float) + 10 * np.resize([1, -1], len(videos[0]))[:, None, None, None]
    assert measure.flicker(np.clip(changed, 0, 255).astype(np.uint8)) == pytest.approx(10 / 255, rel=0.2)


def test_silence_has_no_voice_and_no_words():
    heard = measure.hear(np.zeros(RATE, np.float32))
    assert np.isnan(heard.voice.pitch) and heard.words == ()


def test_edit_rate():
    assert measure.edit_rate(("boo", "bee"), ("boo", "bee")) == 0
    assert measure.edit_rate((), ("boo", "bee")) == 1
    assert measure.edit_rate(("bee", "boo"), ("boo", "bee")) == 1
    assert measure.edit_rate(("boo", "bah", "bee"), ("boo", "bee")) == 0.5


def test_a_voice_is_one_thing_and_what_it_says_another():
    clip = CLIPS[0]
    other = replace(clip.voice, timbre=1 - clip.voice.timbre)
    assert measure.hear(speak(clip.references[1], other)).voice.timbre == pytest.approx(other.timbre, abs=0.06)
