from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.tiny_world.captions import atoms
from pipelines.tiny_world.world import SECONDS, SPLITS, WORDS, make_clip

clips = st.builds(make_clip, st.integers(0, 5), st.sampled_from(SPLITS), st.integers(0, 10_000))


def test_a_clip_is_a_function_of_its_number():
    assert make_clip(1, "train", 7) == make_clip(1, "train", 7)
    others = [make_clip(2, "train", 7), make_clip(1, "train", 8), make_clip(1, "test", 7)]
    assert len({clip.key for clip in (make_clip(1, "train", 7), *others)}) == 4


@given(clips)
def test_syllables_stand_one_after_another_within_the_clip(clip):
    for utterance in (clip.speech, *clip.references):
        ends = [s.start_s + s.seconds for s in utterance.syllables]
        assert utterance.syllables[0].start_s >= 0 and ends[-1] <= utterance.seconds + 1e-9
        assert all(s.start_s >= end - 1e-9 for s, end in zip(utterance.syllables[1:], ends))
        assert 2 <= len(utterance.syllables) <= 4 and set(utterance.words) <= set(WORDS)
    assert clip.speech.seconds == SECONDS and len(clip.references) == 3


@given(clips)
def test_loudness_is_that_of_the_syllables(clip):
    for syllable in clip.speech.syllables:
        middle = np.array(syllable.start_s + syllable.seconds / 2)
        assert clip.speech.loudness(middle) == pytest.approx(syllable.loudness)
    assert clip.speech.loudness(np.array([-0.1, SECONDS + 0.1])).tolist() == [0, 0]


def test_no_look_and_no_sentence_is_in_two_splits():
    found = {split: [make_clip(0, split, n) for n in range(300)] for split in SPLITS}
    for what in (lambda clip: clip.look, lambda clip: clip.speech.words):
        train, val, test = ({what(clip) for clip in found[split]} for split in SPLITS)
        assert not train & val and not train & test and not val & test


@given(clips)
def test_captions_name_everything_but_times(clip):
    found = atoms(clip)
    look, voice = clip.look, clip.voice
    detailed, short, fused = (found[name].lower().split() for name in ("video_detailed", "video_short", "fused"))
    named = {look.skin, look.head, look.hair, look.wall}
    assert named <= set(detailed) and named <= set(fused) and not named & set(short)
    assert len(detailed) == len(short), "spoken words must stand at the same place in all prompts"
    assert set(voice.words) <= set(found["audio_caption"].split()) and not {*voice.words} & {*fused}
    assert found["transcript"] == " ".join(clip.speech.words) and found["transcript"] in found["fused"]
