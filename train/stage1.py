"""``python -m train.stage1 --config configs/train/stage1.yaml``: train the audio half, on speech."""

from __future__ import annotations

import sys

from kit import cli
from train.cli import program

PROGRAM = program(1)

if __name__ == "__main__":
    sys.exit(cli.run(PROGRAM))
