"""Blocks are the unit of sharding: FSDP2 on each of them, from the meta device, changes nothing."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from model.init import initialise
from model.transformer import UniTalking
from model.weights.export import ModelCard, export_model
from model.weights.load import load_strict
from model.weights.transformer import start_model
from tests.model.helpers import CONFIG, batch, difference, random_model


@pytest.fixture(scope="module")
def mesh(tmp_path_factory):
    folder = tmp_path_factory.mktemp("group")
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def sharded(mesh: DeviceMesh, **policy) -> UniTalking:
    with torch.device("meta"):
        model = UniTalking(CONFIG)
    for block in model.blocks:
        fully_shard(block, mesh=mesh, **policy)
    return fully_shard(model, mesh=mesh, **policy)


def gradients(model: UniTalking) -> dict[str, torch.Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # FSDP2 warns of outputs that are views
        out = model(**batch(), clean_frames=torch.tensor([True, False, False]))
        ((out.video - 1).square().mean() + (out.audio - 1).square().mean()).backward()
    return {
        name: parameter.grad.full_tensor() if isinstance(parameter.grad, DTensor) else parameter.grad
        for name, parameter in model.named_parameters()
    }


def test_sharded_blocks_learn_as_whole_ones(mesh):
    torch.manual_seed(0)
    whole = UniTalking(CONFIG)
    torch.manual_seed(0)
    model = sharded(mesh)
    assert len(initialise(model)) == len(list(whole.parameters()))
    for optimised in (model, whole):  # past the zeros that a fresh head begins with
        gradients(optimised)
        torch.optim.SGD(optimised.parameters(), lr=0.01).step()
        optimised.zero_grad()
    ours, theirs = gradients(model), gradients(whole)
    assert max(difference(ours[name], theirs[name]) for name in theirs) < 1e-6
    assert theirs["blocks.0.video.self_attn.q.weight"].abs().max() > 0


def test_mixed_precision_keeps_time_in_float32(mesh):
    """bfloat16 weights move the result a little; noise levels in bfloat16 would move it a lot."""
    whole = random_model()
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, cast_forward_inputs=False)
    model = sharded(mesh, mp_policy=policy)
    state = whole.state_dict()
    load_strict(model, state)
    near = {**batch(), "video_sigma": torch.tensor([0.5, 0.5]), "audio_sigma": torch.tensor([0.5, 0.5])}
    next_level = {**near, "video_sigma": torch.tensor([0.5004, 0.5004]), "audio_sigma": torch.tensor([0.5004, 0.5004])}
    with torch.no_grad():
        assert difference(model(**near).video, whole(**near).video) < 0.1 * whole(**near).video.abs().max()
        assert difference(model(**near).video, model(**next_level).video) > 0


def test_published_weights_go_to_their_shards(mesh, tmp_path):
    whole = random_model()
    export_model(tmp_path / "whole", CONFIG, whole.state_dict(), card=ModelCard(name="whole", summary="."))
    model = sharded(mesh)
    start_model(model, video=tmp_path / "whole", audio=tmp_path / "whole")
    for name, value in model.state_dict().items():
        assert torch.equal(value.full_tensor(), whole.state_dict()[name])
    assert torch.equal(model(**batch()).audio, whole(**batch()).audio)
