"""``--dry-run``: what a recipe will cost on a number of GPUs, from shapes alone; see docs/training.md for the sums."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kit.config import ConfigError
from model.tasks import TASKS
from model.transformer import UniTalking
from train.config import Recipe
from train.lora import add_lora
from train.speed import sample_operations
from train.trained import choose_trained

# Bytes that autograd keeps of a token in a block without recomputation, per unit of dim and of ffn_dim: measured with
# torch.autograd.graph.saved_tensors_hooks on blocks of several widths (tests/train/test_dryrun.py).
KEPT = {"bfloat16": (75, 4), "float32": (97, 8)}
BYTES = {"bfloat16": 2, "float32": 4}
ATTENTIONS = 3  # of a block, whose outputs selective checkpointing keeps: joint, text, reference
DAY_S, HOUR_S = 86_400, 3_600


@dataclass(frozen=True)
class Estimate:
    """
    Attributes:
        parameters: by stream; the reference embedding counts as audio.
        trained: of all.
        batch: samples a GPU computes at once.
        states, gathered, activations: bytes on a GPU: weights, gradients, Adam and average; what FSDP gathers at the
            most; what is kept for the backward pass.
        step_flops: model FLOPs of a step, mean over tasks; ``hardware`` with recomputation.
        step_s: seconds of a step.
    """

    parameters: dict[str, int]
    trained: int
    batch: int
    states: float
    gathered: float
    activations: float
    step_flops: float
    hardware: float
    step_s: float


def estimate(recipe: Recipe, gpus: int) -> Estimate:
    """
    Raises:
        ConfigError: a recipe without ``estimate``, or a batch or heads that such a number of GPUs cannot share.
    """
    config, shape, parallel = recipe.model, recipe.estimate, recipe.parallel
    if shape is None or (shape.video is None and "video" in recipe.streams):
        raise ConfigError("--dry-run needs `estimate` in the recipe: the latents of a clip")
    if gpus < 1 or config.heads % parallel.sequence:
        raise ConfigError(
            f"--gpus {gpus} and parallel.sequence={parallel.sequence}: at least one GPU, and a share of the "
            f"{config.heads} heads for each of a sequence"
        )
    ranks = gpus // parallel.sequence
    local = recipe.batch // max(ranks, 1)
    micro = min(parallel.micro_batch or local, local)
    if gpus % (parallel.sequence * parallel.replicate) or local < 1 or recipe.batch % ranks or local % micro:
        raise ConfigError(
            f"a batch of {recipe.batch} cannot be shared by {gpus} GPUs with sequence={parallel.sequence}, "
            f"replicate={parallel.replicate}, micro_batch={micro}: set them with --set parallel.…"
        )
    with torch.device("meta"):
        model = UniTalking(config, streams=recipe.streams)
    if recipe.lora:
        add_lora(model, recipe.lora)
    choose_trained(model, "lora" if recipe.lora else recipe.trained)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    total = sum(sizes.values())
    trained = sum(sizes[name] for name, parameter in model.named_parameters() if parameter.requires_grad)
    video = sum(size for name, size in sizes.items() if name.startswith("video.") or ".video." in name)

    shards = gpus // parallel.replicate
    states = (4 * total + (4 + 8 + (4 if recipe.ema else 0)) * trained) / shards
    block = sum(parameter.numel() for parameter in model.blocks[0].parameters())
    ends = total - block * config.layers
    width = BYTES[parallel.dtype]
    gathered = width * (ends + 2 * block) + (width + 4) * block  # two blocks; one's gradient, and that in float32

    operations = {
        name: sample_operations(
            config,
            TASKS[name],
            video=shape.video,
            audio=shape.audio,
            checkpointing=parallel.checkpointing,
            trained=trained / total,
        )
        for name in recipe.tasks
    }
    step = recipe.batch * sum(share * operations[name].model for name, share in recipe.tasks.items())
    hardware = recipe.batch * sum(share * operations[name].hardware for name, share in recipe.tasks.items())
    return Estimate(
        parameters={"video": video, "audio": total - video} if video else {"audio": total},
        trained=trained,
        batch=micro,
        states=states,
        gathered=gathered,
        activations=micro * _activations(recipe),
        step_flops=step,
        hardware=hardware,
        step_s=step / (gpus * shape.mfu * shape.peak_tflops * 1e12),
    )


def _activations(recipe: Recipe) -> float:
    """Bytes of one sample."""
    config, shape, parallel = recipe.model, recipe.estimate, recipe.parallel
    tokens = shape.audio
    if "video" in recipe.streams:
        frames, rows, columns = shape.video
        tokens += frames * (rows // config.patch[1]) * (columns // config.patch[2])
    per_dim, per_ffn = KEPT[parallel.dtype]
    block = per_dim * config.dim + per_ffn * config.ffn_dim
    if parallel.checkpointing == "none":
        kept = config.layers * block
    else:
        outputs = 1 + (ATTENTIONS if parallel.checkpointing == "selective" else 0)
        kept = config.layers * outputs * BYTES[parallel.dtype] * config.dim + block
    return tokens * kept / parallel.sequence


def describe(recipe: Recipe, gpus: int) -> str:
    """The estimate as text.

    Raises:
        ConfigError: as :func:`estimate`.
    """
    found, shape, parallel = estimate(recipe, gpus), recipe.estimate, recipe.parallel
    total = sum(found.parameters.values())
    streams = ", ".join(f"{stream} {size / 1e9:.3f} B" for stream, size in found.parameters.items())
    memory = found.states + found.gathered + found.activations
    seconds = found.step_s * recipe.steps
    hours = seconds * gpus / HOUR_S
    price = f", {hours * shape.gpu_hour:,.0f} at {shape.gpu_hour:g} an hour" if shape.gpu_hour else ""
    fits = "fits" if memory < 0.9e9 * shape.memory_gb else "DOES NOT FIT"
    local = recipe.batch * parallel.sequence // gpus
    return "\n".join(
        (
            f"stage {recipe.stage} on {gpus} GPUs, {recipe.steps:,} steps of {recipe.batch} samples",
            f"parameters   {total / 1e9:.3f} B ({streams}), {found.trained / 1e9:.3f} B of them trained",
            f"a GPU has    {local} samples a step, {found.batch} at a time; checkpointing: {parallel.checkpointing}",
            f"memory       {memory / 1e9:.1f} GB of {shape.memory_gb:g}: states {found.states / 1e9:.1f}, gathered "
            f"{found.gathered / 1e9:.1f}, activations {found.activations / 1e9:.1f}; {fits}",
            f"a step       {found.step_flops / 1e15:.2f} PFLOP, {found.hardware / 1e15:.2f} with recomputation",
            f"time         {found.step_s:.2f} s a step at {shape.mfu:.0%} of {shape.peak_tflops:g} TFLOP/s, "
            f"{seconds / DAY_S:.1f} days, {hours:,.0f} GPU hours{price}",
        )
    )
