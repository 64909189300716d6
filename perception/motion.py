"""What changes between small grey frames, and what is left of it when one motion of the whole is taken away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

# Grey levels. At 160 px each pixel averages some 16 of a 640 px frame and the 3 × 3 mean another 9, so that this is
# five standard deviations of noise with 7 levels in the frame; codec noise of a frozen frame stays below 1.
FLOOR = 4.0
# Grainier frames raise the threshold to five times their own noise, up to this much of it.
_MAX_NOISE = 2.0
_NOISE_FACTOR = 5.0
# A motion is only known to a fraction of a pixel, and an edge shifted by that much is not a change.
_SUBPIXEL = 0.35
_MIN_TEXTURE = 4.0
# A motion of the whole changes all texture; where less than this share of it changes, there is none to look for.
_WHOLE = 0.1
_IRLS_ROUNDS = 5
_RIDGE = 1e-4 * np.eye(3, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Change:
    """Two successive frames compared.

    Attributes:
        changed: bool ``[h, w]``, where they differ by more than noise.
        residual: bool ``[h, w]``, where they still do after the best affine motion of the whole frame.
        energy: mean absolute difference in grey levels over ``changed``, 0 without any.
        shift: mean displacement by the motion of the whole, in pixels.
    """

    changed: np.ndarray
    residual: np.ndarray
    energy: float
    shift: float


class Comparer:
    """Compares frames by difference, and by optical flow (DIS, Kroeger et al. 2016) only where all differs."""

    def __init__(self) -> None:
        self._flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)

    def compare(self, before: np.ndarray, after: np.ndarray) -> Change:
        """``before``, ``after``: uint8 ``[h, w]``."""
        difference = _difference(before, after)
        changed = difference > _threshold(difference)
        if not changed.any():
            return Change(changed, changed, 0.0, 0.0)
        energy = float(difference[changed].mean())
        if min(before.shape) < 12:  # the smallest patch of the flow
            return Change(changed, changed, energy, 0.0)
        slope = _slope(after)
        texture = slope > _MIN_TEXTURE
        shift = 0.0
        if changed[texture].sum() <= _WHOLE * texture.sum():
            left = difference - _SUBPIXEL * slope
        else:
            # From ``after`` back to ``before``, so that the earlier frame can be drawn at the later one's places.
            whole = _fit(self._flow.calc(after, before, None), texture)
            moved, inside = _warp(before, whole)
            left = (_difference(moved, after) - _SUBPIXEL * slope) * inside
            shift = float(np.linalg.norm(whole[::8, ::8], axis=2).mean())
        return Change(changed, changed & (left > _threshold(left)), energy, shift)


@dataclass(frozen=True, slots=True)
class Spread:
    """Where a density over the frame lies.

    Attributes:
        x, y: its centre, 0 left or top … 1 right or bottom.
        deviation: standard deviation of its places over that of the whole frame, 0 to about 1.7.
    """

    x: float
    y: float
    deviation: float


def spread(density: np.ndarray) -> Spread | None:
    """Centre and spread of a density ``[h, w]`` of 0 and more; None where it is 0 everywhere."""
    total = density.sum()
    if total == 0:
        return None
    height, width = density.shape
    x, y = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
    across, down = density.sum(axis=0) / total, density.sum(axis=1) / total
    centre_x, centre_y = float(across @ x), float(down @ y)
    variance = float(across @ (x - centre_x) ** 2 + down @ (y - centre_y) ** 2)
    # Places spread evenly over the unit square have a variance of 1/12 along each side.
    return Spread(centre_x, centre_y, float(np.sqrt(variance * 6)))


def home_share(frames: Sequence[np.ndarray], places: np.ndarray, within: float) -> float | None:
    """Share of the time that places spend at their usual luminance, 0…1, averaged over the places; None without any.

    Args:
        frames: uint8 grey ``[h, w]`` each.
        places: bool ``[h, w]``.
        within: grey levels from a place's median over time that still are its usual luminance.
    """
    if not places.any():
        return None
    values = np.stack([frame[places] for frame in frames]).astype(np.float32)
    return float((np.abs(values - np.median(values, axis=0)) <= within).mean())


def _difference(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """float32 ``[h, w]``: absolute difference of 3 × 3 means, which weighs noise down against motion."""
    return np.abs(cv2.blur(after.astype(np.float32) - before.astype(np.float32), (3, 3)))


def _threshold(difference: np.ndarray) -> float:
    noise = 1.4826 * _median(np.abs(difference[::3, ::3]).ravel())
    return max(FLOOR, _NOISE_FACTOR * min(noise, _MAX_NOISE))


def _slope(image: np.ndarray) -> np.ndarray:
    """float32 ``[h, w]``: gradient in grey levels a pixel, the largest of the 3 × 3 neighbourhood."""
    smooth = image.astype(np.float32)
    across = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=1 / 8)
    down = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=1 / 8)
    return cv2.dilate(np.hypot(across, down), np.ones((3, 3), np.uint8))


def _fit(flow: np.ndarray, where: np.ndarray) -> np.ndarray:
    """The affine flow field ``[h, w, 2]`` nearest to ``flow`` over ``where``, by reweighted least squares (Cauchy)."""
    basis = _basis(*where.shape)
    # Neighbouring flow vectors say the same, as DIS smooths them over patches of 8 pixels.
    sparse = np.s_[1::3, 1::3]
    where = where[sparse]
    rows, target = basis[sparse][where], flow[sparse][where]
    if len(rows) < 6:
        return np.zeros_like(flow)
    # Starting from the median keeps a foreground that moves otherwise from pulling the first estimate.
    solution = np.zeros((3, 2), np.float32)
    solution[0] = _median(target[:, 0]), _median(target[:, 1])
    for _ in range(_IRLS_ROUNDS):
        error = np.square(target - rows @ solution).sum(axis=1)
        weight = rows / (1 + error / max(_median(error), 4e-4))[:, None]
        # The ridge answers where all texture lies on one line.
        solution = np.linalg.solve(weight.T @ rows + _RIDGE, weight.T @ target)
    return basis @ solution


def _median(values: np.ndarray) -> float:
    """The upper median: a third of the time of NumPy's, which checks and averages."""
    middle = len(values) // 2
    return float(np.partition(values, middle)[middle])


@lru_cache(maxsize=4)
def _basis(height: int, width: int) -> np.ndarray:
    """float32 ``[h, w, 3]``: 1, x and y, with the frame's sides as units and its centre as origin."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return np.stack([np.ones_like(x), x / width - 0.5, y / height - 0.5], axis=2)


def _warp(image: np.ndarray, flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``image`` drawn where ``flow`` points, and where that lies inside it (float32 0 or 1)."""
    height, width = image.shape
    to_x = np.arange(width, dtype=np.float32) + flow[..., 0]
    to_y = np.arange(height, dtype=np.float32)[:, None] + flow[..., 1]
    moved = cv2.remap(image, to_x, to_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    inside = (to_x >= 1) & (to_x <= width - 2) & (to_y >= 1) & (to_y <= height - 2)
    return moved, inside.astype(np.float32)
