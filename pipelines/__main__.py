"""``python -m pipelines``: whole runs."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from kit import cli
from kit.cli import Command, ConfigFile, Program, argument, set_argument
from pipelines.demo import demo
from pipelines.release.config import ReleaseConfig
from pipelines.release.job import release
from unitalking_data.describe import describe

_logger = logging.getLogger("pipelines")


def main(arguments: list[str] | None = None) -> int:
    return cli.run(PROGRAM, arguments)


def _release(options: argparse.Namespace) -> int:
    print(describe(release(options.config, options.overrides, _logger.info)))
    return 0


def _demo(options: argparse.Namespace) -> int:
    return demo(options.folder, options.executor, options.overrides)


def _demo_training(options: argparse.Namespace) -> int:
    from pipelines.demo_training import demo_training  # torch and the model take seconds, and the others do without

    return demo_training(options.folder, options.executor, options.overrides, _logger.info)


DEMO_ARGUMENTS = (
    argument("--folder", help="where everything goes", type=Path, default=Path("demo")),
    argument(
        "--executor",
        help="a Ray of this machine, or a loop in this process",
        choices=("ray", "local"),
        default="ray",
    ),
    set_argument("the curation (configs/profiles/cpu.yaml)"),
)
PROGRAM = Program(
    "python -m pipelines",
    "Whole runs, from the first job to the last.",
    {
        "release": Command(
            _release,
            "publish the kept clips as shards that others can read; continues where an earlier build stopped",
            [
                "python -m pipelines release --config configs/release/cpu.yaml --set version=v1 --set root=release",
                "python -m pipelines release --config mine.yaml --set version=v2 --set previous=v1",
                "ray job submit --working-dir . -- python -m pipelines release --config configs/release/paper.yaml",
            ],
            config=ConfigFile(ReleaseConfig, "configs/release/*.yaml"),
        ),
        "demo": Command(
            _demo,
            "build a small labelled corpus, curate it, and report how often the curation was right",
            ["python -m pipelines demo", "python -m pipelines demo --folder mydemo --executor local"],
            DEMO_ARGUMENTS,
        ),
        "demo-training": Command(
            _demo_training,
            "the demo, and then its kept clips the whole way: release, latents, a few hundred training steps, samples",
            ["python -m pipelines demo-training"],
            DEMO_ARGUMENTS,
        ),
    },
    default="release",
)

if __name__ == "__main__":
    sys.exit(main())
