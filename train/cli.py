"""The command line of the trainers."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

import torch.distributed as dist

from kit import cli
from kit.cli import Command, ConfigFile, Program, argument
from kit.config import ConfigError, load
from train.config import Recipe
from train.dryrun import describe
from train.loop import Trainer
from train.parallel import start_world

STOPPED = 128 + 15
RECIPE = ConfigFile(Recipe, "configs/train/*.yaml")


def main(stage: int, arguments: Sequence[str] | None = None) -> int:
    """Run a recipe of this stage.

    Returns:
        0 when the last step is done, 143 if SIGTERM stopped it (with a checkpoint), else as :mod:`kit.cli` says.
    """
    return cli.run(program(stage), arguments)


def _train(stage: int, options: argparse.Namespace) -> int:
    recipe = load(options.config, Recipe, options.overrides)
    if recipe.stage != stage:
        raise ConfigError(f"{options.config} is a recipe of stage {recipe.stage}: python -m train.stage{recipe.stage}")
    if options.dry_run:
        print(describe(recipe, options.gpus))
        return 0
    try:
        world = start_world(recipe.parallel, stall_s=recipe.recovery.stall_s)
        return 0 if Trainer(recipe, world, resume=options.resume).run() else STOPPED
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def program(stage: int) -> Program:
    name, recipe = f"python -m train.stage{stage}", f"configs/train/stage{stage}.yaml"
    return Program(
        name,
        f"Train {'the audio half, on speech' if stage == 1 else 'both streams together'}. SIGTERM stops the run after "
        "its step, with a checkpoint.",
        Command(
            partial(_train, stage),
            f"train stage {stage}",
            [
                f"{name} --config configs/train/tiny_stage{stage}.yaml",
                f"{name} --config {recipe} --dry-run --gpus 64",
                f"torchrun --nproc-per-node 8 -m train.stage{stage} --config {recipe} --set seed=1 --resume",
            ],
            [
                argument("--resume", help="go on from the newest checkpoint, if there is one", action="store_true"),
                argument(
                    "--dry-run", help="print sizes, memory, time and cost, and train nothing", action="store_true"
                ),
                argument("--gpus", help="GPUs that --dry-run counts with", type=int, default=8),
            ],
            RECIPE,
        ),
    )
