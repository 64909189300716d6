"""Clips made on the spot from the demo's portrait, encoded and decoded so that they carry a codec's noise."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.items import Clip
from engine.stage import OpenClip
from media.decode import decode_clip
from media.encode import write_video

FRAMES = 75

cv2.setNumThreads(1)


@pytest.fixture(scope="session")
def portrait(portrait: np.ndarray) -> np.ndarray:
    """uint8 RGB ``[360, 480, 3]``: a photograph of a person."""
    return cv2.resize(portrait, (480, 480), interpolation=cv2.INTER_AREA)[:360]


@pytest.fixture
def encoded(tmp_path: Path) -> Callable[..., OpenClip]:
    """``encoded(frames, crf=23)`` is the clip of these frames at 25 a second, after H.264."""

    def encode(frames: Iterable[np.ndarray], crf: float = 23) -> OpenClip:
        path = tmp_path / "clip.mp4"
        frames = list(frames)
        write_video(path, frames, 25, crf=crf)
        return open_clip(path, len(frames) / 25)

    return encode


def open_clip(path: Path, end_s: float) -> OpenClip:
    media = decode_clip(str(path), 0, end_s, needs=frozenset({"frames", "stills"}))
    clip = Clip(path.name, str(path), "", 0, end_s, media.width, media.height, media.fps, 0)
    return OpenClip(clip, media)


def write(image: np.ndarray, text: str, at: tuple[int, int], scale: float = 1.0) -> np.ndarray:
    """``image`` with white, black-edged ``text``, lower left at ``at`` pixels."""
    drawn = image.copy()
    cv2.putText(drawn, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), round(6 * scale), cv2.LINE_AA)
    cv2.putText(drawn, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), round(2 * scale), cv2.LINE_AA)
    return drawn


def talk(portrait: np.ndarray) -> list[np.ndarray]:
    """The portrait on a tripod: its head sways a little and its lower face opens and shuts, the rest stands still."""
    height, width = portrait.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    head = np.exp(-(((x - 0.45 * width) / 60) ** 2) - ((y - 0.35 * height) / 70) ** 2)
    mouth = np.exp(-(((x - 0.45 * width) / 25) ** 2) - ((y - 0.45 * height) / 18) ** 2)
    frames = []
    for tick in range(FRAMES):
        sway = 3 * np.sin(tick / 9) + 1.3 * np.sin(tick / 4.1)
        opening = 7 * np.sin(tick / 1.9) * (0.7 + 0.3 * np.sin(tick / 11))
        to_x, to_y = np.float32(x + sway * head), np.float32(y + opening * mouth)
        frames.append(cv2.remap(portrait, to_x, to_y, cv2.INTER_LINEAR))
    return frames
