"""Moving scenes that a test can make up: places that differ, a head that talks in one of them."""

from __future__ import annotations

import cv2
import numpy as np


def place(seed: int, height: int = 120, width: int = 160) -> np.ndarray:
    """A made-up room: smooth colour with furniture, uint8 RGB ``[h, w, 3]``."""
    random = np.random.default_rng(seed)
    room = cv2.resize(
        random.integers(30, 226, (4, 5, 3), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC
    )
    for _ in range(6):
        corner = random.integers(0, (width, height))
        far = corner + random.integers(10, 50, 2)
        cv2.rectangle(room, corner.tolist(), far.tolist(), random.integers(0, 256, 3).tolist(), -1)
    return room


def talking_head(seed: int, count: int, start: int = 0) -> list[np.ndarray]:
    """``count`` frames of a head that sways, nods and speaks before :func:`place` (same seed, same place)."""
    room = place(seed)
    skin = np.random.default_rng(seed + 1000).integers(120, 220, 3).tolist()
    frames = []
    for index in range(start, start + count):
        frame = room.copy()
        centre = (80 + round(14 * np.sin(index / 9)), 66 + round(5 * np.sin(index / 5)))
        mouth = 2 + round(5 * abs(np.sin(index / 1.7)))
        cv2.ellipse(frame, (centre[0], 130), (52, 36), 0, 0, 360, (60, 60, 90), -1)
        cv2.ellipse(frame, centre, (26, 34), 0, 0, 360, skin, -1)
        for side in (-10, 10):
            cv2.circle(frame, (centre[0] + side, centre[1] - 8), 3, (20, 20, 20), -1)
        cv2.ellipse(frame, (centre[0], centre[1] + 16), (9, mouth), 0, 0, 360, (90, 20, 30), -1)
        frames.append(frame)
    return frames


def dissolve(first: list[np.ndarray], second: list[np.ndarray], count: int) -> list[np.ndarray]:
    """The two scenes joined over their ``count`` outer frames."""
    joined = []
    for index, (old, new) in enumerate(zip(first[-count:], second[:count], strict=True)):
        share = (index + 1) / (count + 1)
        joined.append((old * (1 - share) + new * share).astype(np.uint8))
    return [*first[:-count], *joined, *second[count:]]


def small(frames: list[np.ndarray]) -> list[np.ndarray]:
    """What the shot detectors are given: uint8 RGB ``[27, 48, 3]``."""
    return [cv2.resize(frame, (48, 27), interpolation=cv2.INTER_AREA) for frame in frames]
