"""Faces and audio that move together by a known offset, out of random numbers."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d

from perception.lip_cca import LIPS
from perception.train_lip_cca import TrainingClip

PER_FRAME = 640


def talker(seed: int, frames: int = 200, late: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A synthetic face ``[n, 468, 3]`` that nods and opens its mouth, and noise as loud as the mouth is open."""
    random = np.random.default_rng(seed)
    opening = gaussian_filter1d(random.standard_normal(frames + 100), 2)
    opening = opening / opening.std()
    face = np.random.default_rng(99).normal(0, 50, (468, 3))
    face[[234, 454]] = [[-90, 0, 0], [90, 0, 0]]  # the cheeks: it looks into the camera
    points = np.tile(face, (frames, 1, 1))
    points[:, LIPS[:20], 1] += 4 * opening[50 : 50 + frames, None]
    points = points @ turn(0.2 * np.sin(np.arange(frames) / 40)) + random.normal(0, 0.2, points.shape)
    loud = np.repeat(np.exp(opening[50 - late : 50 - late + frames]), PER_FRAME)
    points += np.array([300, 200, 0])
    return points, (0.02 * loud * random.standard_normal(frames * PER_FRAME)).astype(np.float32)


def turn(angle: np.ndarray | float) -> np.ndarray:
    angle = np.atleast_1d(angle)
    cos, sin, zero, one = np.cos(angle), np.sin(angle), 0 * angle, 0 * angle + 1
    return np.stack([cos, zero, sin, zero, one, zero, -sin, zero, cos], axis=1).reshape(-1, 3, 3)


def training_clips(count: int = 8) -> list[TrainingClip]:
    return [TrainingClip(f"{k}.mp4", f"family {k % 4}", 0, *talker(k)) for k in range(count)]
