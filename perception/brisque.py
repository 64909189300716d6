"""BRISQUE (Mittal, Moorthy, Bovik 2012): how far an image's statistics are from those of undistorted photographs.

Locally normalised luminance and the products of its neighbours are fitted with generalised Gaussians at two scales: 36
features, mapped to a score by the authors' support vector regression, which learnt the LIVE database's opinions.
"""

from __future__ import annotations

import pickletools
from pathlib import Path

import cv2
import numpy as np
from scipy.special import gamma

_WINDOW, _SIGMA = (7, 7), 7 / 6
_MIN_SIDE = 32
_SHAPES = np.arange(0.2, 10.0, 0.001)
_RATIOS = gamma(2 / _SHAPES) ** 2 / (gamma(1 / _SHAPES) * gamma(3 / _SHAPES))  # rises with the shape
_FEATURES = 36


class Brisque:
    """The published regression: ``model`` is libsvm's text file, ``ranges`` the features' ranges at training."""

    def __init__(self, model: Path, ranges: Path) -> None:
        header, _, body = model.read_text("ascii").partition("\nSV\n")
        settings = dict(line.split(maxsplit=1) for line in header.splitlines())
        if settings["svm_type"] != "epsilon_svr" or settings["kernel_type"] != "rbf":
            raise ValueError(f"{model}: not a support vector regression with an RBF kernel")
        self._gamma, self._rho = float(settings["gamma"]), float(settings["rho"])
        rows = body.split("\n")[: int(settings["total_sv"])]
        self._weights = np.array([float(row.split(maxsplit=1)[0]) for row in rows])
        self._vectors = np.zeros((len(rows), _FEATURES))
        for vector, row in zip(self._vectors, rows):
            for entry in row.split()[1:]:
                index, _, value = entry.partition(":")
                vector[int(index) - 1] = float(value)
        # The file is a pickle of two plain lists of floats. It is not executed: the numbers are picked out of it.
        numbers = [value for code, value, _ in pickletools.genops(ranges.read_bytes()) if code.name == "BINFLOAT"]
        if len(numbers) != 2 * _FEATURES:
            raise ValueError(f"{ranges}: expected {2 * _FEATURES} numbers, found {len(numbers)}")
        self._low, self._high = np.array(numbers[:_FEATURES]), np.array(numbers[_FEATURES:])

    def __call__(self, grey: np.ndarray) -> float | None:
        """Score of a uint8 ``[h, w]`` image: about 0 (best) to 100; None below 32 pixels or without any texture."""
        if min(grey.shape) < _MIN_SIDE or grey.std() < 1:
            return None
        values = features(grey)
        scaled = 2 * (values - self._low) / (self._high - self._low) - 1
        distances = np.square(self._vectors - scaled).sum(axis=1)
        return float(self._weights @ np.exp(-self._gamma * distances) - self._rho)


def features(grey: np.ndarray) -> np.ndarray:
    """float64 ``[36]``: 18 at full size, 18 at half."""
    full = grey.astype(np.float32)
    half = cv2.resize(full, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return np.concatenate([_scale_features(full), _scale_features(half)])


def _scale_features(luminance: np.ndarray) -> np.ndarray:
    mean = cv2.GaussianBlur(luminance, _WINDOW, _SIGMA, borderType=cv2.BORDER_REPLICATE)
    square = cv2.GaussianBlur(luminance * luminance, _WINDOW, _SIGMA, borderType=cv2.BORDER_REPLICATE)
    normal = (luminance - mean) / (np.sqrt(np.abs(square - mean * mean)) + 1)
    shape, left, right = _fit(normal)
    values = [shape, (left**2 + right**2) / 2]
    for product in (
        normal[:, :-1] * normal[:, 1:],
        normal[:-1] * normal[1:],
        normal[:-1, :-1] * normal[1:, 1:],
        normal[1:, :-1] * normal[:-1, 1:],
    ):
        shape, left, right = _fit(product)
        mean_value = (right - left) * gamma(2 / shape) / np.sqrt(gamma(1 / shape) * gamma(3 / shape))
        values += [shape, mean_value, left**2, right**2]
    return np.array(values)


def _fit(values: np.ndarray) -> tuple[float, float, float]:
    """Shape, left and right deviation of an asymmetric generalised Gaussian, by moments (Lasmar et al. 2009)."""
    below, above = np.minimum(values, 0), np.maximum(values, 0)
    left = np.sqrt(np.vdot(below, below) / max(np.count_nonzero(below), 1))
    right = np.sqrt(np.vdot(above, above) / max(np.count_nonzero(above), 1))
    lopsided = left / max(right, 1e-9)
    ratio = float(np.abs(values).mean() ** 2 / max(np.vdot(values, values) / values.size, 1e-12))
    ratio *= (lopsided**3 + 1) * (lopsided + 1) / (lopsided**2 + 1) ** 2
    index = min(int(np.searchsorted(_RATIOS, ratio)), len(_SHAPES) - 1)
    return float(_SHAPES[index]), float(left), float(right)
