"""What stage 1 leaves alone is what it copied from Wan."""

from __future__ import annotations

import torch

from model.config import ModelConfig
from model.transformer import UniTalking
from model.weights.transformer import CONDITIONING
from train.trained import choose_trained


def test_the_papers_first_stage_trains_all_but_what_comes_from_wan():
    with torch.device("meta"):
        model = UniTalking(ModelConfig.preset("tiny"), streams=("audio",))
    choose_trained(model, "paper")
    frozen = {name.removeprefix("audio.") for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen and all(name.startswith(CONDITIONING) for name in frozen)
    choose_trained(model, "audio_all")
    assert all(p.requires_grad for p in model.parameters())
