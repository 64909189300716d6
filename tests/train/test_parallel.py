"""What sharding leaves where, in a world of one."""

from __future__ import annotations

import pytest
import torch
from torch.distributed.tensor import DTensor

from kit.config import ConfigError
from tests.train.worlds import recipe
from train.build import build_model
from train.config import ParallelConfig
from train.parallel import reduce_over_replicas, reshard, start_world

TEXT = torch.ones(1, 6, 8)


@pytest.fixture(scope="module")
def model():
    content = recipe("release", "out", parallel={"device": "cpu", "dtype": "bfloat16"})
    return build_model(content, start_world(content.parallel, stall_s=100))


def speak(model):
    return model(audio=torch.ones(1, 3, 10), audio_sigma=torch.ones(1), text=TEXT).audio.sum()


def test_gradients_of_a_micro_batch_are_sharded_at_once(model):
    """Held whole until the last micro-batch, they would be four bytes of every parameter on every rank."""
    reduce_over_replicas(model, False)
    speak(model).backward()
    gradients = [parameter.grad for name, parameter in model.named_parameters() if "audio.head." in name]
    assert gradients and all(isinstance(g, DTensor) and g.dtype == torch.float32 for g in gradients)


def test_what_a_pass_without_gradients_gathered_is_given_back(model):
    masters = dict(model.named_parameters())
    with torch.no_grad():
        speak(model)
    assert any(parameter is not masters[name] for name, parameter in model.named_parameters())
    reshard(model)
    assert all(parameter is masters[name] for name, parameter in model.named_parameters())


@pytest.mark.parametrize(("gpus", "words"), [(0, "cannot be used here"), (2, "process 2 of this machine has no GPU")])
def test_a_gpu_that_is_not_there_is_named(monkeypatch, gpus, words):
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(ConfigError, match=words):
        start_world(ParallelConfig(device="cuda"), stall_s=100)
