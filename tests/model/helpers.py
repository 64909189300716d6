"""Small models and inputs that the tests of the transformer share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from model.config import ModelConfig
from model.transformer import UniTalking

CONFIG = ModelConfig(
    layers=2,
    dim=48,
    heads=2,
    ffn_dim=64,
    video_channels=6,
    audio_channels=5,
    text_len=12,
    text_dim=16,
    reference_len=7,
)


def random_model(config: ModelConfig = CONFIG, *, seed: int = 0, **arguments: Any) -> UniTalking:
    """A model none of whose weights are zero or one, so that every path shows in the output."""
    torch.manual_seed(seed)
    model = UniTalking(config, **arguments)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    return model.eval()


def batch(
    size: int = 2, *, frames: int = 3, latents: int = 9, seed: int = 0, config: ModelConfig = CONFIG
) -> dict[str, Tensor]:
    """Inputs of both streams, with a reference and a noise level a sample."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(size, *shape, generator=random)

    sigma = torch.rand(size, generator=random)
    return {
        "video": normal(config.video_channels, frames, 4, 6),
        "audio": normal(config.audio_channels, latents),
        "text": normal(8, config.text_dim),
        "video_sigma": sigma,
        "audio_sigma": sigma,
        "reference": normal(5, config.audio_channels),
    }


def difference(a: Tensor, b: Tensor) -> float:
    """Maximum absolute difference."""
    assert a.shape == b.shape
    return (a - b).abs().max().item()
