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

from kit import cli, logs
from kit.cli import Command, Program, argument
from kit.config import ConfigError, load
from kit.errors import Fault
from train.cli import RECIPE
from train.config import Recipe
from train.loading import open_loader
from train.loop import Trainer
from train.parallel import start_world


def work(content: dict[str, Any]) -> None:
    """One rank, of the recipe, the folder and the form of the log in ``content``.

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
    with logs.attached(content["log"]):
        Trainer(recipe, start_world(recipe.parallel, stall_s=recipe.recovery.stall_s), resume=True).run()


def main(arguments: Sequence[str] | None = None) -> int:
    return cli.run(PROGRAM, arguments)


def _train(options: argparse.Namespace) -> int:
    recipe = load(options.config, Recipe, options.overrides)
    open_loader(recipe, rank=0, world=max(1, options.workers // recipe.parallel.sequence))
    trainer = TorchTrainer(
        work,
        train_loop_config={"recipe": recipe.content(), "folder": str(Path.cwd()), "log": options.log},
        scaling_config=ScalingConfig(num_workers=options.workers, use_gpu=options.gpu),
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if options.gpu else "gloo"),
        run_config=RunConfig(failure_config=FailureConfig(max_failures=options.failures)),
    )
    try:
        trainer.fit()
    except WorkerGroupError as error:
        ranks = (f"rank {rank}: {_reason(failure)}" for rank, failure in sorted(error.worker_failures.items()))
        raise Fault("\n".join(ranks)) from None
    except TrainingFailedError as error:
        raise Fault(str(error)) from None
    return 0


def _reason(failure: BaseException) -> str:
    """The last line of what Ray wraps with its traceback."""
    return (str(failure).strip().splitlines() or [type(failure).__name__])[-1].strip()


PROGRAM = Program(
    "python -m train.on_ray",
    "Start the trainer by Ray Train. Ranks that fail are started again, and the run goes on from its last checkpoint.",
    Command(
        _train,
        "train on a Ray cluster",
        [
            "python -m train.on_ray --config configs/train/stage2.yaml --workers 64 --gpu",
            "ray job submit --working-dir . -- python -m train.on_ray --config mine.yaml --workers 8 --gpu",
        ],
        [
            argument("--workers", help="ranks", type=int, required=True),
            argument("--gpu", help="give each rank a GPU", action="store_true"),
            argument("--failures", help="how often to start again after a failure", type=int, default=3),
        ],
        RECIPE,
    ),
)

if __name__ == "__main__":
    sys.exit(main())
