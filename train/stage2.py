"""``python -m train.stage2 --config configs/train/stage2.yaml``: train both streams, on all tasks."""

from __future__ import annotations

import sys

from train.cli import main

if __name__ == "__main__":
    sys.exit(main(2))
