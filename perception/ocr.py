"""Text in images: PP-OCRv4 run from its ONNX files, without its framework.

The detector is DB (Liao et al., "Real-time Scene Text Detection with Differentiable Binarization", 2020): a map of
text probability, thresholded, cut into components and each grown back to the text's outline. The recogniser is
SVTR-LCNet with CTC. Input scaling and the constants are those of PaddleOCR's and RapidOCR's inference for these models.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from perception.onnx import open_model

_MAP_THRESHOLD = 0.3
_BOX_THRESHOLD = 0.6
_UNCLIP = 1.6
_MIN_SIDE = 3
_MAX_BOXES = 100
_MULTIPLE = 32
_LINE_HEIGHT = 48
# Widths are rounded up to this, so that lines of like width share a batch without padding.
_WIDTH_STEP = 64
_MAX_LINE_WIDTH = 1280


@dataclass(frozen=True, slots=True)
class TextBox:
    """A line of text: float32 ``corners [4, 2]`` (x, y in pixels, clockwise from top left), confidence 0…1."""

    corners: np.ndarray
    text: str
    confidence: float


class TextReader:
    """Detects lines of text on an image scaled to ``side`` and reads them at full size.

    Args:
        side: long side in pixels that the detector sees.
        providers: onnxruntime's execution providers in order of preference.
    """

    def __init__(self, detector: Path, recogniser: Path, side: int, providers: Sequence[str]) -> None:
        self._side = side
        self._detector = open_model(detector, providers)
        self._recogniser = open_model(recogniser, providers)
        characters = self._recogniser.get_modelmeta().custom_metadata_map["character"].splitlines()
        self._alphabet = ["", *characters, " "]  # 0 is CTC's blank

    def read(self, image: np.ndarray) -> list[TextBox]:
        """``image``: uint8 RGB ``[h, w, 3]``. Boxes from top to bottom."""
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        outlines = sorted(self._detect(bgr), key=lambda corners: (corners[:, 1].min(), corners[:, 0].min()))
        lines = [_straighten(bgr, corners) for corners in outlines]
        return [TextBox(corners, *reading) for corners, reading in zip(outlines, self._recognise(lines))]

    def _detect(self, bgr: np.ndarray) -> list[np.ndarray]:
        height, width = bgr.shape[:2]
        scale = self._side / max(height, width)
        size = [max(_MULTIPLE, round(length * scale / _MULTIPLE) * _MULTIPLE) for length in (width, height)]
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        scaled = cv2.resize(bgr, size, interpolation=how).astype(np.float32)
        batch = ((scaled / 255 - 0.5) / 0.5).transpose(2, 0, 1)[None]
        probability = self._detector.run(None, {self._detector.get_inputs()[0].name: batch})[0][0, 0]
        limit = np.array([width, height], np.float32)
        found = [corners * (limit / size) for corners in outlines(probability)]
        return [np.clip(corners, 0, limit).astype(np.float32) for corners in found]

    def _recognise(self, lines: list[np.ndarray]) -> list[tuple[str, float]]:
        readings: list[tuple[str, float]] = [("", 0.0)] * len(lines)
        by_width: dict[int, list[int]] = defaultdict(list)
        for index, line in enumerate(lines):
            by_width[line.shape[1]].append(index)
        for indices in by_width.values():
            batch = np.stack([lines[index] for index in indices]).astype(np.float32)
            batch = ((batch / 255 - 0.5) / 0.5).transpose(0, 3, 1, 2)
            scores = self._recogniser.run(None, {self._recogniser.get_inputs()[0].name: batch})[0]
            for index, row in zip(indices, scores):
                readings[index] = decode(row, self._alphabet)
        return readings


def outlines(probability: np.ndarray) -> list[np.ndarray]:
    """Rectangles (float32 ``[4, 2]``, clockwise from top left) around the text in a DB map ``[h, w]`` of 0…1.

    DB is trained to mark a shrunken core of each line; a rectangle of area A and perimeter P is grown back by
    ``1.6 A / P`` on every side.
    """
    mask = (probability > _MAP_THRESHOLD).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    found = []
    for contour in contours[:_MAX_BOXES]:
        centre, (width, height), angle = cv2.minAreaRect(contour)
        if min(width, height) < _MIN_SIDE or _mean_inside(probability, contour) < _BOX_THRESHOLD:
            continue
        grow = _UNCLIP * width * height / (width + height)  # = 2 × 1.6 A / P
        found.append(_clockwise(cv2.boxPoints((centre, (width + grow, height + grow), angle))))
    return found


def _mean_inside(probability: np.ndarray, contour: np.ndarray) -> float:
    x, y, width, height = cv2.boundingRect(contour)
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [contour - (x, y)], 1)
    return cv2.mean(probability[y : y + height, x : x + width], mask)[0]


def _clockwise(corners: np.ndarray) -> np.ndarray:
    """From the top left: the two leftmost corners first, by height."""
    left, right = np.split(corners[np.argsort(corners[:, 0], kind="stable")], 2)
    top_left, bottom_left = left[np.argsort(left[:, 1])]
    top_right, bottom_right = right[np.argsort(right[:, 1])]
    return np.stack([top_left, top_right, bottom_right, bottom_left]).astype(np.float32)


def _straighten(bgr: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """The line as an upright strip, uint8 ``[48, w, 3]``; vertical text is turned to lie."""
    width = max(np.linalg.norm(corners[0] - corners[1]), np.linalg.norm(corners[3] - corners[2]), 1)
    height = max(np.linalg.norm(corners[0] - corners[3]), np.linalg.norm(corners[1] - corners[2]), 1)
    if height >= 1.5 * width:
        corners, width, height = np.roll(corners, -1, axis=0), height, width
    natural = min(_LINE_HEIGHT * width / height, _MAX_LINE_WIDTH)
    target = np.array([[0, 0], [natural, 0], [natural, _LINE_HEIGHT], [0, _LINE_HEIGHT]], np.float32)
    transform = cv2.getPerspectiveTransform(corners.astype(np.float32), target)
    strip = _WIDTH_STEP * int(np.ceil(natural / _WIDTH_STEP))
    line = cv2.warpPerspective(
        bgr, transform, (strip, _LINE_HEIGHT), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    line[:, int(np.ceil(natural)) :] = 128  # the middle grey is the network's zero
    return line


def decode(scores: np.ndarray, alphabet: Sequence[str]) -> tuple[str, float]:
    """Best path of CTC: ``scores [steps, symbols]`` of 0…1 to the string and the mean score of its characters."""
    best = scores.argmax(axis=1)
    keep = (best != 0) & (best != np.concatenate([[0], best[:-1]]))
    if not keep.any():
        return "", 0.0
    text = "".join(alphabet[index] for index in best[keep])
    return text, float(scores.max(axis=1)[keep].mean())
