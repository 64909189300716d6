"""The table of tasks says what happens in the model: each row is run, and what it says is measured."""

from __future__ import annotations

import pytest
import torch

from model.tasks import TASKS, Task
from tests.model.helpers import batch, difference, random_model

FRAMES = 3


@pytest.fixture(scope="module")
def model():
    return random_model()


def run(model, task: Task, **changes):
    inputs = {**batch(frames=FRAMES), **changes}
    if "video" not in task.streams:
        inputs |= {"video": None, "video_sigma": None}
    else:
        inputs["clean_frames"] = task.clean_frames(FRAMES)
    if not task.reference:
        inputs["reference"] = None
    with torch.no_grad():
        return model(**inputs, blind_video=task.blind_video)


def test_the_table():
    rows = {
        name: (task.video, "noisy", task.reference, task.blind_video, task.generated, task.stage)
        for name, task in TASKS.items()
    }
    both, audio = ("video", "audio"), ("audio",)
    assert rows == {
        "tts": ("absent", "noisy", False, False, audio, 1),
        "tts_ref": ("absent", "noisy", True, False, audio, 1),
        "t2av": ("noisy", "noisy", False, False, both, 2),
        "ti2av": ("first_frame", "noisy", False, False, both, 2),
        "tr2av": ("noisy", "noisy", True, False, both, 2),
        "tv2a": ("given", "noisy", False, True, audio, 2),
    }


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_streams_and_losses(model, task):
    out = run(model, task)
    assert (out.video is not None) == ("video" in task.streams)
    assert out.audio is not None and "audio" in task.generated
    learned = ~task.clean_frames(FRAMES)
    assert ("video" in task.generated) == ("video" in task.streams and bool(learned.any()))
    assert learned.tolist() == {"first_frame": [False, True, True], "given": [False] * 3}.get(task.video, [True] * 3)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_who_hears_whom(model, task):
    out, inputs = run(model, task), batch(frames=FRAMES)
    louder = run(model, task, audio=2 * inputs["audio"])
    other = run(model, task, reference=-inputs["reference"])
    assert (difference(other.audio, out.audio) > 1e-4) == task.reference
    if "video" in task.streams:
        assert torch.equal(louder.video, out.video) == task.blind_video
        brighter = run(model, task, video=2 * inputs["video"])
        assert difference(brighter.audio, out.audio) > 1e-4


@pytest.mark.parametrize("task", [task for task in TASKS.values() if "video" in task.streams], ids=lambda t: t.name)
def test_given_video_has_no_noise_level(model, task):
    """The sample's noise level reaches the video only where the task noises it."""
    out = run(model, task)
    other = run(model, task, video_sigma=torch.full((2,), 0.123))
    assert torch.equal(out.video, other.video) == (task.video == "given")
