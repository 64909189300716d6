"""Fixtures that every test folder shares."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import hypothesis
import pytest

cv2.setNumThreads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")
# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("project", deadline=None)
hypothesis.settings.load_profile("project")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of labelled clips, golden tensors and small weights that some machines have."""
    root = Path(os.environ.get("UNITALKING_SHARED", REPOSITORY.parent / "shared"))
    if not (root / "bench" / "clips").is_dir():
        pytest.skip("needs the folder of labelled clips: set UNITALKING_SHARED to it")
    return root


@pytest.fixture(scope="session")
def weights() -> Callable[..., dict[str, Path]]:
    """``weights("silero_vad", …)`` fetches registered model files and gives their paths."""
    from engine.weights import fetch

    return lambda *names: {name: fetch(name) for name in names}
