"""``python -m train.stage2 --config configs/train/stage2.yaml``: train both streams, on all tasks."""

from __future__ import annotations

import sys

from kit import cli
from train.cli import program

PROGRAM = program(2)

if __name__ == "__main__":
    sys.exit(cli.run(PROGRAM))
