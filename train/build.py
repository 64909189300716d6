"""From a recipe to a model with its weights, spread over the ranks, and its optimizer."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

from model.attention import Heads, JointAttention, attention
from model.init import initialise
from model.transformer import UniTalking
from model.weights.load import LoadReport, load_strict, open_weights
from model.weights.transformer import start_model
from train.config import OptimizerConfig, Recipe
from train.lora import add_lora, start_lora
from train.models import start_files
from train.parallel import World, parallelise
from train.trained import choose_trained

_logger = logging.getLogger(__name__)


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
        TensorsError: weights that do not fit. WeightsError: a start that is neither at a path nor in the cache.
    """
    with torch.device("meta"):
        model = UniTalking(recipe.model, streams=recipe.streams)
    if recipe.streams_apart:
        take_streams_apart(model)
    if recipe.lora:
        add_lora(model, recipe.lora)
    choose_trained(model, "lora" if recipe.lora else recipe.trained)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    model = parallelise(model, recipe.parallel, world)
    torch.manual_seed(recipe.seed)
    for path, report in _start(model, recipe, world.device).items():
        if world.first:
            _logger.info(f"from {path}: {report.loaded} tensors, {len(report.missing)} not there")
    for name, parameter in model.named_parameters():  # loading makes new parameters
        parameter.requires_grad_(name in trained)
    return model.train()


def _start(model: UniTalking, recipe: Recipe, device: torch.device) -> dict[str, LoadReport]:
    video, audio, files = recipe.init.video, recipe.init.audio, start_files(recipe.init)
    if recipe.lora:
        fresh = {"*.lora_[ab]": "it is what this run trains"}
        report = load_strict(model, open_weights(files[audio]), may_miss=fresh, dtype=torch.float32, device=device)
        initialise(model, device)
        start_lora(model)
        return {audio: report}
    reports = start_model(model, video=files.get(video), audio=files.get(audio), dtype=torch.float32, device=device)
    return dict(zip((path for path in (video, audio) if path), reports))


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
