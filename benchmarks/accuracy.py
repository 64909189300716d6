"""How often curation is right: verdicts against labels.

Selects from the scores of a finished run with its thresholds, so other thresholds cost seconds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.machine import headline
from curation.accuracy import accuracy_table, check_labels, read_labels
from curation.config import CurationConfig, resolve_config
from curation.job import decide
from kit import cli
from kit.cli import Command, ConfigFile, Program, argument


def main(arguments: Sequence[str] | None = None) -> int:
    return cli.run(PROGRAM, arguments)


def _judge(options: argparse.Namespace) -> int:
    curation = resolve_config(options.config, [f"root={options.scores}", *options.overrides])
    labels = read_labels(options.labels)
    print(headline("benchmarks.accuracy"))
    decide(curation)
    print(accuracy_table(check_labels(curation, labels)))
    return 0


PROGRAM = Program(
    "python -m benchmarks.accuracy",
    "Select from the scores of a run with its thresholds, and hold the verdicts against labels.",
    Command(
        _judge,
        "judge a run",
        ["python -m benchmarks.accuracy --labels labels.tsv --scores runs/mine --set thresholds=stricter.yaml"],
        [
            argument("--labels", help="TSV with file, label, params", type=Path, required=True),
            argument("--scores", help="root of a finished curation run", metavar="ROOT", required=True),
        ],
        ConfigFile(CurationConfig, "configs/profiles/*.yaml", default="configs/profiles/cpu.yaml"),
    ),
)

if __name__ == "__main__":
    sys.exit(main())
