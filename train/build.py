"""From a recipe to a model with its weights, spread over the ranks, and its optimizer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.attention import Heads, JointAttention, attention
from model.transformer import UniTalking
from model.weights.transformer import start_model
from train.config import OptimizerConfig, Recipe
from train.parallel import World, parallelise
from train.trained import choose_trained


class ApartAttention(JointAttention):
    """The ablation: each stream attends to itself alone."""

    def forward(
        self, video: Heads, audio: Heads, *, blind_video: bool = False, audio_lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return attention(*video), attention(*audio, key_lengths=audio_lengths)


def take_streams_apart(model: UniTalking) -> None:
    """Have the streams of every block attend to themselves alone; a sampler of such a model needs it too."""
    for block in model.blocks:
        block.attention = ApartAttention()


def build_model(recipe: Recipe, world: World) -> UniTalking:
    """The recipe's streams in float32, sharded, with their starting weights; every rank the same.

    Raises:
        WeightsError: weights that do not fit.
    """
    with torch.device("meta"):
        model = UniTalking(recipe.model, streams=recipe.streams)
    if recipe.streams_apart:
        take_streams_apart(model)
    choose_trained(model, recipe.trained)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    model = parallelise(model, recipe.parallel, world)
    torch.manual_seed(recipe.seed)
    reports = start_model(
        model, video=recipe.init.video, audio=recipe.init.audio, dtype=torch.float32, device=world.device
    )
    for name, parameter in model.named_parameters():  # loading makes new parameters
        parameter.requires_grad_(name in trained)
    if world.first:
        for path, report in zip((p for p in (recipe.init.video, recipe.init.audio) if p), reports):
            print(f"from {path}: {report.loaded} tensors loaded, {len(report.missing)} not there", flush=True)
    return model.train()


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def build_optimizer(config: OptimizerConfig, parameters: dict[str, nn.Parameter]) -> torch.optim.AdamW:
    """AdamW whose state exists from the start, so that every checkpoint has the same keys."""
    optimizer = torch.optim.AdamW(
        parameters.values(), config.lr, config.betas, config.eps, config.weight_decay, fused=True
    )
    for parameter in parameters.values():
        optimizer.state[parameter] = {
            "step": torch.zeros((), device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    return optimizer
