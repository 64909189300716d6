"""Verdicts against labels: ``python -m benchmarks.accuracy --labels FILE --scores ROOT --config FILE``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.machine import headline
from curation.config import resolve_config
from curation.job import decide
from pipelines.accuracy import judge, read_labels, table


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy",
        description="Select from the scores of a run with its thresholds, and hold the verdicts against labels.",
    )
    parser.add_argument("--labels", type=Path, required=True, help="TSV with file, label, params")
    parser.add_argument("--scores", required=True, metavar="ROOT", help="root of a finished curation run")
    parser.add_argument("--config", default="configs/profiles/cpu.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    options = parser.parse_args()
    curation = resolve_config(options.config, [f"root={options.scores}", *options.overrides])
    try:
        labels = read_labels(options.labels)
    except OSError as error:
        parser.error(f"--labels {options.labels}: {error.strerror}")
    print(headline("benchmarks.accuracy"))
    decide(curation)
    print(table(judge(curation, labels)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
