"""The maps against the attention matrix written out."""

from __future__ import annotations

import pytest
import torch

import model.attention_maps
from model.attention_maps import attention_maps
from model.tasks import TASKS
from tests.model.test_sampler import CONFIG, FRAMES, LENGTH, SIDE, network, setting

__all__ = ["network"]


def maps_of(network, name):
    task = TASKS[name]
    noise, conditions = setting(name)
    seen, given_now = setting("tv2a")
    latents = type(seen)(given_now.video, seen.audio)
    noise = type(noise)(torch.randn_like(given_now.video), noise.audio)
    return attention_maps(network, task, latents, noise, conditions, 0.5)


@pytest.mark.parametrize("chunk", [5, 1024])
def test_weights_are_those_of_the_joint_softmax(network, monkeypatch, chunk):
    monkeypatch.setattr(model.attention_maps, "QUERIES_AT_ONCE", chunk)
    heads = []
    hook = network.blocks[0].attention.register_forward_pre_hook(lambda _, streams: heads.append(streams))
    first, second = maps_of(network, "t2av")
    hook.remove()
    ((video, audio),) = heads
    q, k = torch.cat((video.q, audio.q), 1)[0], torch.cat((video.k, audio.k), 1)[0]
    matrix = (torch.einsum("qnd,knd->nqk", q, k) / q.shape[-1] ** 0.5).softmax(-1).mean(0)
    tokens = video.q.shape[1]
    torch.testing.assert_close(first.audio_to_video.flatten(1), matrix[tokens:, :tokens], atol=1e-6, rtol=0)
    torch.testing.assert_close(first.video_to_audio.flatten(0, 2), matrix[:tokens, tokens:], atol=1e-6, rtol=0)
    assert first.audio_to_video.shape == (LENGTH, FRAMES, SIDE // 2, SIDE // 2)
    assert not torch.allclose(first.audio_to_video, second.audio_to_video)


def test_blind_video_does_not_listen(network):
    maps = maps_of(network, "tv2a")
    assert len(maps) == CONFIG.layers
    assert all((m.video_to_audio == 0).all() and (m.audio_to_video > 0).all() for m in maps)


def test_looking_changes_nothing_and_leaves_no_hook(network):
    maps_of(network, "ti2av")
    assert not any(block.attention._forward_pre_hooks for block in network.blocks)
