"""The command line of the trainers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch.distributed as dist

from engine.config import ConfigError, load
from train.config import Recipe
from train.dryrun import describe
from train.loop import BrokenRun, Trainer
from train.parallel import start_world

STOPPED = 128 + 15


def main(stage: int, arguments: Sequence[str] | None = None) -> int:
    """Run a recipe of this stage.

    Returns:
        0 when the last step is done, 2 for a user's mistake, 143 if SIGTERM stopped it (with a checkpoint), 1 for a
        run that cannot go on.
    """
    options = _parser(stage).parse_args(arguments)
    try:
        recipe = load(options.config, Recipe, options.set)
        if recipe.stage != stage:
            raise ConfigError(
                f"{options.config} is a recipe of stage {recipe.stage}: python -m train.stage{recipe.stage}"
            )
        if options.dry_run:
            print(describe(recipe, options.gpus))
            return 0
        world = start_world(recipe.parallel, stall_s=recipe.guard.stall_s)
        done = Trainer(recipe, world, resume=options.resume).run()
    except (ConfigError, ValueError, FileNotFoundError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 2
    except (BrokenRun, OSError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 1
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    return 0 if done else STOPPED


def _parser(stage: int) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m train.stage{stage}", description=__doc__)
    parser.add_argument("--config", required=True, help="recipe, configs/train/*.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="replace a value of the recipe")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint, if there is one")
    parser.add_argument("--dry-run", action="store_true", help="print sizes, memory, time and cost, and train nothing")
    parser.add_argument("--gpus", type=int, default=8, help="for --dry-run")
    return parser
