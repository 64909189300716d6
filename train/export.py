"""From a checkpoint to a folder of safetensors for the sampler, the next stage and others.

``python -m train.export runs/stage2 exports/stage2 [--step N] [--raw]``
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor

from kit import cli
from kit.cli import Command, Program, argument
from kit.errors import UserError
from kit.weights import ModelUse, registry
from model.transformer import UniTalking
from model.weights.export import ModelCard, export_model
from train.checkpoint import read_state, step_of, whole_checkpoints
from train.config import Recipe
from train.lora import add_lora, merge_lora


def export_checkpoint(path: Path, folder: Path, *, raw: bool = False) -> Path:
    """Write the weights of a checkpoint, in one process, whatever the number of ranks that wrote it.

    Args:
        folder: must not exist.
        raw: the trained weights themselves where the run has a moving average of them.

    Returns:
        The folder.
    """
    state = read_state(path)
    recipe = Recipe.model_validate(state["recipe"])
    tensors = load_weights(path, recipe, raw=raw)
    steps = f"{state['step']:,} steps of {recipe.batch} samples"
    card = ModelCard(
        name=folder.name,
        summary=f"Stage {recipe.stage} of UniTalking, trained on {' and '.join(recipe.streams)} latents.",
        started_from=tuple(dict.fromkeys(_published(p) for p in (recipe.init.video, recipe.init.audio) if p)),
        trained_on=f"{recipe.data.split} of {Path(recipe.data.release).name}: {', '.join(recipe.tasks)}; {steps}",
        models=[ModelUse.model_validate(use) for use in state["models"]] if "models" in state else None,
    )
    return export_model(folder, recipe.model, tensors, card=card)


def _published(start: str) -> str:
    """A start as others know it: the hub's name of a registered model, else the file's or folder's own."""
    weight = registry().get(start.partition("/")[0])
    hub = next((source.hub for source in weight.sources if source.hub), None) if weight else None
    return hub or Path(start).name


def load_weights(path: Path, recipe: Recipe, *, raw: bool = False) -> dict[str, Tensor]:
    """The model's tensors of a checkpoint, float32, by parameter name; LoRA is merged into what it updates."""
    with torch.device("meta"):
        model = UniTalking(recipe.model, streams=recipe.streams)
    if recipe.lora:
        add_lora(model, recipe.lora)
    shapes = model.state_dict()
    averaged = set()
    if not raw:
        stored = dcp.FileSystemReader(path).read_metadata().state_dict_metadata
        averaged = {name.removeprefix("ema.") for name in stored if name.startswith("ema.")}
    tensors = {
        f"{'ema' if name in averaged else 'model'}.{name}": torch.empty(value.shape) for name, value in shapes.items()
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        dcp.load(tensors, checkpoint_id=path, no_dist=True)
    weights = {name.partition(".")[2]: value for name, value in tensors.items()}
    return merge_lora(weights, recipe.lora) if recipe.lora else weights


def main(arguments: Sequence[str] | None = None) -> int:
    return cli.run(PROGRAM, arguments)


def _export(options: argparse.Namespace) -> int:
    whole = whole_checkpoints(options.run / "checkpoints")
    chosen = [path for path in whole if options.step in (None, step_of(path))]
    if not chosen:
        there = ", ".join(str(step_of(path)) for path in whole) or "none"
        raise UserError(f"no such checkpoint in {options.run}; there are steps {there}")
    print(export_checkpoint(chosen[-1], options.folder, raw=options.raw))
    return 0


PROGRAM = Program(
    "python -m train.export",
    "Turn a checkpoint into a folder of safetensors for the sampler, the next stage and others.",
    Command(
        _export,
        "export a checkpoint",
        [
            "python -m train.export runs/stage2 exports/stage2",
            "python -m train.export runs/stage2 exports/step-5000 --step 5000 --raw",
        ],
        [
            argument("run", help="folder of the run, the recipe's `out`", type=Path),
            argument("folder", help="where to write; must not exist", type=Path),
            argument("--step", help="of the checkpoint; the newest if not given", type=int),
            argument("--raw", help="the weights themselves, not their moving average", action="store_true"),
        ],
    ),
)

if __name__ == "__main__":
    sys.exit(main())
