"""``python -m train.on_ray --config configs/train/stage2.yaml --workers 64 --gpu``: the trainer, started by Ray Train.

Ray places the processes, lets them find each other and starts them again after a failure; the run then goes on from
its last checkpoint by itself. Relative paths of the recipe are relative to where this is started, on every node: the
nodes share their file system.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError, WorkerGroupError
from ray.train.torch import TorchConfig, TorchTrainer

from engine.config import ConfigError, load
from train.config import Recipe
from train.loading import open_loader
from train.loop import Trainer
from train.parallel import start_world


def work(content: dict[str, Any]) -> None:
    """One rank, of the recipe and the folder in ``content``.

    Raises:
        ConfigError: no such folder on this node.
    """
    try:
        os.chdir(content["folder"])  # Ray's own is a new one for each run
    except OSError as error:
        raise ConfigError(
            f"{content['folder']} is not on every node ({error.strerror}): start from a shared one"
        ) from None
    recipe = Recipe.model_validate(content["recipe"])
    Trainer(recipe, start_world(recipe.parallel, stall_s=recipe.guard.stall_s), resume=True).run()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m train.on_ray", description=__doc__.split("\n\n")[0])
    parser.add_argument("--config", required=True, help="recipe, configs/train/*.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="replace a value of the recipe")
    parser.add_argument("--workers", type=int, required=True, help="ranks")
    parser.add_argument("--gpu", action="store_true", help="one GPU each")
    parser.add_argument("--failures", type=int, default=3, help="how often to start again")
    options = parser.parse_args(arguments)
    try:
        recipe = load(options.config, Recipe, options.set)
        open_loader(recipe, rank=0, world=max(1, options.workers // recipe.parallel.sequence))
    except (ConfigError, ValueError, FileNotFoundError) as error:
        print(f"train.on_ray: {error}", file=sys.stderr)
        return 2
    trainer = TorchTrainer(
        work,
        train_loop_config={"recipe": recipe.content(), "folder": str(Path.cwd())},
        scaling_config=ScalingConfig(num_workers=options.workers, use_gpu=options.gpu),
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if options.gpu else "gloo"),
        run_config=RunConfig(failure_config=FailureConfig(max_failures=options.failures)),
    )
    try:
        trainer.fit()
    except WorkerGroupError as error:
        for rank, failure in sorted(error.worker_failures.items()):
            print(f"train.on_ray: rank {rank}: {_reason(failure)}", file=sys.stderr)
        return 1
    except TrainingFailedError as error:
        print(f"train.on_ray: {error}", file=sys.stderr)
        return 1
    return 0


def _reason(failure: BaseException) -> str:
    """The last line of what Ray wraps with its traceback."""
    return (str(failure).strip().splitlines() or [type(failure).__name__])[-1]


if __name__ == "__main__":
    sys.exit(main())
