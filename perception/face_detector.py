"""Face boxes with BlazeFace, full range: the model and its decoding as MediaPipe publishes them.

Bazarevsky et al., "BlazeFace: Sub-millisecond Neural Face Detection on Mobile GPUs" (2019); anchors and tensor
layout from MediaPipe's ``face_detection_full_range`` graph (Apache-2.0).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from perception.tflite import TfliteModel

_STRIDE = 4  # input pixels a cell; one anchor a cell
_MERGE_IOU = 0.3


@dataclass(frozen=True, slots=True)
class Detection:
    """One face.

    Attributes:
        box: float32 ``[4]``, x1, y1, x2, y2 in pixels of the image.
        score: 0…1.
        eyes: float32 ``[2, 2]``, x and y of the person's right and left eye.
    """

    box: np.ndarray
    score: float
    eyes: np.ndarray


class FaceDetector:
    """The BlazeFace network.

    Args:
        min_score: 0…1, what scores less is no detection.
    """

    def __init__(self, path: Path, min_score: float) -> None:
        self._model = TfliteModel(path)
        self._min_score = min_score
        cells = self._model.side // _STRIDE
        y, x = np.mgrid[:cells, :cells]
        self._anchors = ((np.stack([x, y], -1).reshape(-1, 2) + 0.5) * _STRIDE).astype(np.float32)

    def __call__(self, image: np.ndarray) -> list[Detection]:
        """Faces in a uint8 RGB image, the surest first."""
        side = self._model.side
        scale = side / max(image.shape[:2])
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)[:side, :side]
        canvas = np.full((side, side, 3), -1, np.float32)
        canvas[: small.shape[0], : small.shape[1]] = small / np.float32(127.5) - 1
        regressed, logits = self._model(canvas)
        logits = logits[0, :, 0]
        chosen = np.flatnonzero(logits > np.log(self._min_score / (1 - self._min_score)))
        chosen = chosen[np.argsort(-logits[chosen], kind="stable")]
        scores = 1 / (1 + np.exp(-logits[chosen]))
        values = regressed[0, chosen]
        centres = self._anchors[chosen] + values[:, :2]
        boxes = np.concatenate([centres - values[:, 2:4] / 2, centres + values[:, 2:4] / 2], 1)
        eyes = self._anchors[chosen, None] + values[:, 4:8].reshape(-1, 2, 2)
        return [Detection(box / scale, float(score), eye / scale) for box, score, eye in _merge(boxes, scores, eyes)]


def iou(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union of ``[4]`` with ``[n, 4]``."""
    low = np.maximum(box[:2], boxes[:, :2])
    high = np.minimum(box[2:], boxes[:, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return shared / np.maximum(np.prod(box[2:] - box[:2]) + areas - shared, 1e-6)


def _merge(boxes: np.ndarray, scores: np.ndarray, eyes: np.ndarray):
    """BlazeFace's blending: each group of overlapping answers becomes their mean, weighted by score."""
    left = np.arange(len(boxes))
    while len(left):
        same = iou(boxes[left[0]], boxes[left]) > _MERGE_IOU
        group = left[same]
        weight = (scores[group] / scores[group].sum()).astype(np.float32)
        yield weight @ boxes[group], scores[group[0]], np.tensordot(weight, eyes[group], 1)
        left = left[~same]
