"""``python -m pipelines.tiny_world``: generate the tiny world as a release."""

from __future__ import annotations

import argparse
import logging
import os
import sys

from kit import cli
from kit.cli import Command, Program, argument
from pipelines.tiny_world.face import FPS
from pipelines.tiny_world.release import write_release
from unitalking_data.describe import describe

_logger = logging.getLogger("pipelines.tiny_world")


def main(arguments: list[str] | None = None) -> int:
    return cli.run(PROGRAM, arguments)


def _generate(options: argparse.Namespace) -> int:
    manifest = write_release(
        options.folder,
        {"train": options.train, "val": options.val, "test": options.test},
        seed=options.seed,
        fps=options.fps,
        workers=options.workers,
        report=_logger.info,
    )
    print(describe(manifest))
    return 0


PROGRAM = Program(
    "python -m pipelines.tiny_world",
    "Generate the tiny world, talking faces of 32 × 32 pixels, as a release; continues where an earlier run stopped.",
    Command(
        _generate,
        "generate the tiny world",
        [
            "python -m pipelines.tiny_world runs/tiny/release",
            "python -m pipelines.tiny_world tiny --train 256",
        ],
        [
            argument("folder", help="of the release, local or fsspec URL"),
            argument("--train", help="clips to train on", type=int, default=8192),
            argument("--val", help="clips of the validation split", type=int, default=64),
            argument("--test", help="clips of the test split", type=int, default=256),
            argument("--seed", help="of the world", type=int, default=0),
            argument("--fps", help="frames a second", type=float, default=FPS),
            argument("--workers", help="processes", type=int, default=len(os.sched_getaffinity(0))),
        ],
    ),
)

if __name__ == "__main__":
    sys.exit(main())
