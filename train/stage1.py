"""``python -m train.stage1 --config configs/train/stage1.yaml``: train the audio half, on speech."""

from __future__ import annotations

import sys

from train.cli import main

if __name__ == "__main__":
    sys.exit(main(1))
