"""Measures of luminance images: bars, spectrum, sharpness, blocks and noise."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

_BAR_LEVEL = 24.0  # grey levels: video black with the noise of a codec
_BAR_STEP = 8.0  # grey levels between a bar and the image, in most columns
_BAR_MIN = 0.01

_SPECTRUM_LINE = 256
_SPECTRUM_BINS = 64
_FLAT_BAND = (0.02, 0.1)
_CUTOFF_DB = -9.0

_NOISE_KERNEL = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)


def bars(greys: Sequence[np.ndarray]) -> tuple[int, int, int, int]:
    """Rows and columns of black bars common to all ``greys`` (uint8 ``[h, w]``): top, bottom, left, right.

    A bar is dark and plain in every image and ends in a straight edge: a dark background has no such edge.
    """
    stack = np.stack(greys)
    top, bottom = _bar(stack), _bar(stack[:, ::-1])
    turned = stack.transpose(0, 2, 1)
    left, right = _bar(turned), _bar(turned[:, ::-1])
    return top, bottom, left, right


def _bar(stack: np.ndarray) -> int:
    """Height of the bar at the first rows of ``[n, h, w]``."""
    height = stack.shape[1]
    dark = (np.percentile(stack, 99, axis=2) <= _BAR_LEVEL).all(axis=0)
    end = height if dark.all() else int(np.argmin(dark))
    if end == height or end < max(2, _BAR_MIN * height):
        return 0
    # Scaling smears the edge over a row or two.
    before = stack[:, max(end - 2, 0)].astype(np.int16)
    after = stack[:, min(end + 2, height - 1)].astype(np.int16)
    step = (after - before).max(axis=0)
    return end if np.mean(step > _BAR_STEP) > 0.5 else 0


def spectrum(greys: Sequence[np.ndarray]) -> np.ndarray:
    """float64 ``[65]``: power of rows and columns at 0…0.5 cycles a pixel, averaged over uint8 ``[h, w]`` images."""
    grid = np.linspace(0, 0.5, _SPECTRUM_BINS + 1)
    total = np.zeros(_SPECTRUM_BINS + 1)
    for grey in greys:
        for lines in (grey[::2], grey.T[::2]):
            length = min(_SPECTRUM_LINE, lines.shape[1] // 2 * 2)
            cut = lines[:, : lines.shape[1] // length * length].reshape(-1, length).astype(np.float32)
            cut = (cut - cut.mean(axis=1, keepdims=True)) * np.hanning(length).astype(np.float32)
            power = np.square(np.abs(np.fft.rfft(cut, axis=1))).mean(axis=0)
            total += np.interp(grid, np.linspace(0, 0.5, len(power)), power / np.square(np.hanning(length)).sum())
    return total / (2 * len(greys))


def cutoff(power: np.ndarray) -> float:
    """The frequency in cycles a pixel at which detail ends, up to 0.5.

    Photographs have power that falls with the square of the frequency, so power × frequency² is about flat; an
    enlarged or blurred image falls off where its real detail ends. The cutoff is the first frequency above the
    reference band at which the product stays 9 dB below its level there: an image enlarged k times ends at 0.5 / k
    to 0.65 / k, by how sharply it was enlarged.
    """
    frequency = np.linspace(0, 0.5, len(power))
    flat = np.convolve(power * frequency**2, np.ones(3) / 3, mode="same")
    low, high = _FLAT_BAND
    level = np.median(flat[(frequency >= low) & (frequency <= high)])
    above = frequency > high
    below = flat[above] < level * 10 ** (_CUTOFF_DB / 10)
    # The last bin of the moving mean reaches over the end.
    return float(frequency[above][below.argmax()]) if below[:-1].any() else 0.5


def sharpness(grey: np.ndarray) -> float:
    """Standard deviation of the Laplacian over that of the image: what share of the contrast is fine detail."""
    contrast = float(grey.std())
    return float(cv2.Laplacian(grey.astype(np.float32), cv2.CV_32F).std()) / contrast if contrast >= 1 else 0.0


def laplacian(grey: np.ndarray) -> np.float32:
    """Variance of the Laplacian, grey levels squared."""
    return cv2.Laplacian(grey.astype(np.float32), cv2.CV_32F).var()


def blockiness(grey: np.ndarray) -> float:
    """Mean luminance step over the borders of an 8 × 8 grid (of any phase) over that elsewhere, minus 1; 0 is none."""
    values = grey.astype(np.float32)
    excess = [_grid_excess(np.abs(np.diff(values, axis=axis)).mean(axis=1 - axis)) for axis in (0, 1)]
    return float(np.mean(excess))


def _grid_excess(steps: np.ndarray) -> float:
    whole = steps[: len(steps) // 8 * 8].reshape(-1, 8)
    if not whole.size:
        return 0.0
    # Medians over the lines, so that one strong edge of the scene is no grid.
    phases = np.median(whole, axis=0)
    best = int(phases.argmax())
    return float(phases[best] / max(np.delete(phases, best).mean(), 1e-3) - 1)


def noise(grey: np.ndarray) -> float:
    """Standard deviation of noise in grey levels (Immerkær 1996), from the calmer half of its 16 × 16 tiles."""
    response = np.abs(cv2.filter2D(grey.astype(np.float32), cv2.CV_32F, _NOISE_KERNEL))
    tiles = cv2.resize(
        response, (max(1, grey.shape[1] // 16), max(1, grey.shape[0] // 16)), interpolation=cv2.INTER_AREA
    )
    calm = tiles[tiles <= np.median(tiles)]
    return float(calm.mean() * np.sqrt(np.pi / 2) / 6)
