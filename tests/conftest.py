"""Fixtures that every test folder shares."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import hypothesis
import numpy as np
import pytest

if TYPE_CHECKING:
    from media.clip import ClipMedia
    from perception.tracks import FaceTracker

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
    from kit.weights import fetch

    return lambda *names: {name: fetch(name) for name in names}


@pytest.fixture(scope="session")
def portrait(weights: Callable[..., dict[str, Path]]) -> np.ndarray:
    """uint8 RGB [512, 512, 3]: a face about 105 pixels wide around x = 225, y = 120."""
    return cv2.cvtColor(cv2.imread(str(weights("portrait")["portrait"])), cv2.COLOR_BGR2RGB)


@pytest.fixture(scope="session")
def interview(weights: Callable[..., dict[str, Path]]) -> ClipMedia:
    """4 s of a real statement with frames and audio: the speaker at the right, a silent listener at the left."""
    from media.decode import decode_clip

    path = weights("demo_interview")["demo_interview"]
    return decode_clip(str(path), 0, 4, needs=frozenset({"frames", "audio"}))


@pytest.fixture(scope="session")
def interview_speech(weights: Callable[..., dict[str, Path]]) -> np.ndarray:
    """float32 [128000]: 8 s of the same statement, mono 16 kHz: speech with short pauses, no music."""
    from media.decode import decode_clip

    path = weights("demo_interview")["demo_interview"]
    return decode_clip(str(path), 0, 8, needs=frozenset({"audio"})).speech


@pytest.fixture(scope="session")
def tracker(weights: Callable[..., dict[str, Path]]) -> FaceTracker:
    from perception.tracks import TRACKER_WEIGHTS, load_tracker

    return load_tracker(weights(*TRACKER_WEIGHTS))
