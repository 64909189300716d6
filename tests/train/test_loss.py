"""Tasks in training are the table's, and the loss of a batch is the mean of its parts'."""

from __future__ import annotations

import pytest
import torch

from model.config import ModelConfig
from model.tasks import TASKS
from model.transformer import UniTalking
from tests.train.worlds import MODEL
from train.batch import Batch
from train.config import DropConfig, NoiseConfig
from train.loss import add_noise, losses
from train.metrics import mean_loss

CONFIG = ModelConfig(**MODEL)
NOISE, NO_DROP = NoiseConfig(shift=2.0), DropConfig(text=0, reference=0, both=0)
SAMPLES = 4


@pytest.fixture
def batch():
    torch.manual_seed(0)
    return Batch(
        names=[f"clip{n}|0" for n in range(SAMPLES)],
        video=torch.randn(SAMPLES, 4, 5, 4, 4),
        audio=torch.randn(SAMPLES, 3, 10),
        audio_lengths=None,
        reference=torch.randn(SAMPLES, 9, 3),
        texts={"default": torch.randn(SAMPLES, 6, 8), "ti2av": torch.full((SAMPLES, 6, 8), 7.0)},
        null_text=torch.ones(SAMPLES, 6, 8),
    )


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    model = UniTalking(CONFIG)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


def prepared(batch, task, step=3, drop=NO_DROP, noise=NOISE):
    return add_noise(batch, TASKS[task], seed=1, step=step, noise=noise, drop=drop)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_its_row_of_the_table(batch, name):
    task, noisy = TASKS[name], prepared(batch, name)
    inputs = noisy.inputs
    assert set(noisy.targets) == set(task.generated) == set(noisy.sigmas)
    assert (inputs.get("video") is not None) == ("video" in task.streams)
    assert (inputs["reference"] is not None) == task.reference
    assert inputs.get("blind_video", False) == task.blind_video
    assert torch.equal(inputs["text"], batch.text(name))
    for stream in task.generated:
        data, sigma = getattr(batch, stream), noisy.sigmas[stream].view(-1, *[1] * (getattr(batch, stream).ndim - 1))
        noise = noisy.targets[stream] + data
        expected = (1 - sigma) * data + sigma * noise
        seen = inputs[stream]
        if stream == "video" and task.video == "first_frame":
            assert torch.equal(seen[:, :, 0], data[:, :, 0])
            assert inputs["clean_frames"].tolist() == [True, False, False, False, False]
            seen, expected = seen[:, :, 1:], expected[:, :, 1:]
        assert torch.allclose(seen, expected, atol=1e-6)
        assert torch.equal(inputs[f"{stream}_sigma"], noisy.sigmas[stream])
    if task.video == "given":
        assert torch.equal(inputs["video"], batch.video) and not inputs["video_sigma"].any()


def test_streams_share_their_level_unless_they_are_independent(batch):
    same = prepared(batch, "t2av").sigmas
    assert torch.equal(same["video"], same["audio"])
    apart = prepared(batch, "t2av", noise=NoiseConfig(shift=2.0, independent=True)).sigmas
    assert not torch.isclose(apart["video"], apart["audio"]).any()


@pytest.mark.parametrize("name", TASKS)
def test_the_loss_of_a_batch_is_the_mean_of_its_parts(batch, model, name):
    whole = losses(model, prepared(batch, name))
    parts = [losses(model, prepared(batch.part(n, n + 1), name)) for n in range(SAMPLES)]
    for stream, loss in whole.items():
        assert loss.shape == (SAMPLES,)
        assert torch.allclose(loss, torch.cat([part[stream] for part in parts]), rtol=1e-5)
    summed = sum(mean_loss(list(part.values())) for part in parts) / SAMPLES
    assert torch.allclose(mean_loss(list(whole.values())), summed, rtol=1e-5)


def test_a_given_first_frame_is_not_in_the_loss(batch, model):
    noisy = prepared(batch, "ti2av")
    before = losses(model, noisy)["video"]
    noisy.targets["video"][:, :, 0] += 100
    assert torch.equal(before, losses(model, noisy)["video"])
    velocity = model(**noisy.inputs).video
    errors = (velocity - noisy.targets["video"])[:, :, 1:].square().flatten(1).mean(1)
    assert torch.allclose(before, errors, rtol=1e-5)


def test_padding_is_not_in_the_loss(batch, model):
    lengths = torch.tensor([10, 6, 3, 10])
    padded = batch._replace(audio_lengths=lengths)
    before = losses(model, prepared(padded, "tts"))["audio"]
    alone = batch.part(1, 2)._replace(audio=batch.audio[1:2, :, :6])
    noisy = prepared(padded, "tts")
    target = noisy.targets["audio"][1:2, :, :6]
    own = prepared(alone, "tts")
    own.targets["audio"].copy_(target)
    own.inputs["audio"] = noisy.inputs["audio"][1:2, :, :6]
    assert torch.allclose(before[1:2], losses(model, own)["audio"], rtol=1e-4)


def test_dropped_conditions_become_the_null_ones(batch):
    noisy = prepared(batch, "tr2av", drop=DropConfig(text=0, reference=0, both=1))
    assert torch.equal(noisy.inputs["text"], batch.null_text)
    assert not noisy.inputs["reference"].any()


def test_what_a_task_needs_must_be_there(batch):
    with pytest.raises(ValueError, match="t2av needs video"):
        prepared(batch._replace(video=None), "t2av")
