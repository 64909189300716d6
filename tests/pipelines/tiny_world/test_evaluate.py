"""The judge knows a sampler that is right in everything from one that is wrong in one thing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from model.output import Sample
from model.request import Request
from pipelines.tiny_world.evaluate import Judge, UnseenClip, sample_clips, unseen_clips
from pipelines.tiny_world.face import FPS
from pipelines.tiny_world.release import write_release
from pipelines.tiny_world.sheet import draw_sheet
from pipelines.tiny_world.voice import RATE
from unitalking_data.verification import verify

CLIPS = 12


class Copyist:
    """In place of a sampler: answers with the world's own clips, of which it takes another where it is told to err."""

    def __init__(self, clips: Sequence[UnseenClip], frames: Callable[[int], int], audio: Callable[[int], int]) -> None:
        self.clips, self.frames, self.audio = clips, frames, audio
        self.asked: list[Request] = []

    def generate(self, requests: Sequence[Request]) -> list[Sample]:
        self.asked += requests
        return [
            Sample(r, self.clips[self.frames(int(r.key))].video, FPS, self.clips[self.audio(int(r.key))].audio, RATE)
            for r in requests
        ]


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> str:
    root = str(tmp_path_factory.mktemp("world") / "release")
    write_release(root, {"train": 2, "test": CLIPS}, seed=3)
    return root


@pytest.fixture(scope="module")
def clips(release, tmp_path_factory) -> list[UnseenClip]:
    return unseen_clips(release, tmp_path_factory.mktemp("given"), CLIPS)


def own(number: int) -> int:
    return number


def next_one(number: int) -> int:
    return (number + 1) % CLIPS


def test_a_world_is_a_valid_release(release):
    assert not verify(release).problems


def test_the_same_world_twice_is_the_same(release, tmp_path):
    write_release(str(tmp_path / "again"), {"train": 2, "test": CLIPS}, seed=3, workers=2)
    first, second = (Path(root, "manifest.json").read_bytes() for root in (release, tmp_path / "again"))
    assert first == second


def test_what_is_right_is_judged_right(clips):
    found = Judge(clips).judge(Copyist(clips, own, own))
    assert found["t2av.sync"] > 0.9 and found["t2av.lag_s"] == 0 and found["tv2a.sync"] > 0.9
    assert found["t2av.identity"] == found["ti2av.identity"] == 1
    assert found["t2av.words"] == found["tv2a.words"] == found["tts.words"] == found["t2av.words_seen"] == 0
    assert found["tr2av.pitch"] < 0.01 and found["tr2av.timbre"] < 0.05
    assert found["tr2av.pitch_other"] > 0.1 and found["t2av.motion"] == pytest.approx(1)


def test_the_wrong_frames_are_seen(clips):
    found = Judge(clips).judge(Copyist(clips, next_one, own))
    assert abs(found["t2av.sync"]) < 0.4 and found["t2av.identity"] < 0.5 and found["t2av.words_seen"] > 0.4
    assert found["t2av.words"] == 0 and found["tv2a.sync"] > 0.9


def test_the_wrong_audio_is_heard(clips):
    found = Judge(clips).judge(Copyist(clips, own, next_one))
    assert abs(found["t2av.sync"]) < 0.4 and abs(found["tv2a.sync"]) < 0.4 and found["t2av.words"] > 0.4
    assert found["tr2av.pitch"] > 0.1 and found["tr2av.pitch_other"] < 0.01
    assert found["t2av.identity"] == 1


class StillAndSilent(Copyist):
    """Silence and a mouth that stands still."""

    def generate(self, requests: Sequence[Request]) -> list[Sample]:
        still = [np.repeat(sample.video[:1], len(sample.video), 0) for sample in super().generate(requests)]
        return [Sample(r, frames, FPS, np.zeros(13_600, np.float32), RATE) for r, frames in zip(requests, still)]


def test_what_is_still_and_silent_agrees_with_nothing(clips):
    found = Judge(clips).judge(StillAndSilent(clips, own, own))
    for task in ("t2av", "ti2av"):
        assert found[f"{task}.sync"] == found[f"{task}.shuffled"] == found[f"{task}.motion"] == 0
    assert found["tv2a.sync"] == 0 and found["t2av.words"] == found["tts.words"] == 1
    assert found["tr2av.pitch"] > 0.3 and found["tr2av.timbre"] > 0.3


def test_a_video_of_another_clip_is_a_shuffled_pair(clips):
    """The control is what it is for: it finds agreement between clips where there is some."""
    found = Judge(clips).judge(Copyist(clips, lambda number: 0, lambda number: 0))
    assert found["t2av.shuffled"] > 0.9 and found["ti2av.shuffled"] > 0.9 and abs(found["tv2a.shuffled"]) < 0.4


def test_prompts_do_not_tell_what_the_input_is_to_tell(clips):
    copyist = Copyist(clips, own, own)
    Judge(clips).judge(copyist)
    asked = {(request.task, int(request.key)): request for request in copyist.asked}
    for number, clip in enumerate(clips):
        look, voice = clip.truth.look, clip.truth.voice
        for task in ("t2av", "tv2a", "ti2av", "tr2av", "tts"):
            prompt = asked[task, number].prompt.lower()
            assert clip.truth.transcript in prompt
            assert (look.skin in prompt.split()) == (task != "ti2av")
            assert (voice.words[0] in prompt.split()) == (task != "tr2av")
        assert asked["ti2av", number].image and asked["tv2a", number].video and asked["tr2av", number].reference


def test_a_model_that_hears_no_reference_is_asked_without(clips):
    copyist = Copyist(clips, own, own)
    Judge(clips).judge(copyist, references=False)
    assert "tr2av" not in {request.task for request in copyist.asked}


def test_another_release_is_refused(release, tmp_path):
    with pytest.raises(ValueError, match="no tiny world with 13 clips"):
        unseen_clips(release, tmp_path, CLIPS + 1)


def test_a_sheet_is_drawn(clips, tmp_path):
    samples = sample_clips(Copyist(clips, own, own), clips[:2], "t2av")
    draw_sheet(tmp_path / "sheet.png", [("one", samples[0]), ("two", samples[1])])
    content = (tmp_path / "sheet.png").read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n" and len(content) > 5000
    assert np.all([sample.video.shape == (17, 32, 32, 3) for sample in samples])
