from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from model.config import ModelConfig
from model.flops import forward_flops
from model.video_cache import VideoCache
from tests.model.helpers import CONFIG, batch, random_model

GRID = (3, 4, 6)


def counted(model, cache=None, **inputs) -> int:
    """Operations as PyTorch counts them; the plain kernel shows attention as the products that it is."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(**inputs, cache=cache)
    return counter.get_total_flops()


@pytest.mark.parametrize("change", [{}, {"audio_input": "conv_mlp"}, {"reference_streams": "audio"}])
def test_counts_are_pytorchs(change):
    config = CONFIG.model_copy(update=change)
    model, inputs = random_model(config), batch(1, config=config)
    audio = {name: inputs[name] for name in ("audio", "audio_sigma", "text", "reference")}
    video = {name: inputs[name] for name in ("video", "video_sigma", "text", "reference")}
    first = torch.tensor([True, False, False])
    assert counted(model, **inputs) == forward_flops(config, video=GRID, audio=9).total
    assert (
        counted(model, **inputs, clean_frames=first)
        == forward_flops(config, video=GRID, audio=9, clean_frames=True).total
    )
    assert (
        counted(model, **inputs, blind_video=True) == forward_flops(config, video=GRID, audio=9, blind_video=True).total
    )
    assert counted(model, **audio) == forward_flops(config, audio=9).total
    mute = forward_flops(config, audio=9, reference=False)
    assert counted(model, **{**audio, "reference": None}) == mute.total
    if config.has_reference("video"):
        assert counted(model, **video) == forward_flops(config, video=GRID).total


def test_a_filled_cache_costs_audio_alone():
    model, inputs, cache = random_model(), batch(1), VideoCache(CONFIG.layers)
    with torch.no_grad():
        model(**inputs, blind_video=True, cache=cache)
    expected = forward_flops(CONFIG, video=GRID, audio=9, blind_video=True, cached=True)
    assert counted(model, cache, **inputs, blind_video=True) == expected.total


def test_paper_at_704p():
    flops = forward_flops(ModelConfig.preset("paper"), video=(31, 44, 80), audio=218)
    assert flops.total / 1e15 == pytest.approx(0.527, abs=0.001)
    assert flops.joint / flops.total == pytest.approx(0.53, abs=0.005)
