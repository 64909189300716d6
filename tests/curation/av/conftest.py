from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from corpus.clip import Clip
from curation.av.tracks import TRACKER_WEIGHTS, FaceTracker, load_tracker
from engine.stage import OpenClip
from media.clip import ClipMedia
from media.decode import decode_clip
from media.planes import Planes


def opened(media: ClipMedia) -> OpenClip:
    return OpenClip(Clip("k", "a.mp4", "c", 0, media.duration_s, media.width, media.height, 25, 16_000), media)


def pictures(frames: np.ndarray, scale: int = 1) -> ClipMedia:
    """A clip without sound whose source is ``scale`` times as large as ``frames``."""
    height, width = frames.shape[1:3]
    return ClipMedia(len(frames) / 25, width=width * scale, height=height * scale, fps=25.0, planes=Planes(frames))


@pytest.fixture(scope="session")
def tracker(weights: Callable[..., dict[str, Path]]) -> FaceTracker:
    return load_tracker(weights(*TRACKER_WEIGHTS))


@pytest.fixture(scope="session")
def portrait(weights: Callable[..., dict[str, Path]]) -> np.ndarray:
    """uint8 RGB [512, 512, 3]: a face about 105 pixels wide around x = 225, y = 120."""
    return cv2.cvtColor(cv2.imread(str(weights("portrait")["portrait"])), cv2.COLOR_BGR2RGB)


@pytest.fixture(scope="session")
def interview(weights: Callable[..., dict[str, Path]]) -> ClipMedia:
    """4 s of a real statement: the speaker at the right, a silent listener at the left."""
    path = weights("demo_interview")["demo_interview"]
    return decode_clip(str(path), 0, 4, needs=frozenset({"frames", "audio"}))
