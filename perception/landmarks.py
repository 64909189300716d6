"""468 face landmarks with MediaPipe Face Mesh.

Kartynnik et al., "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs" (2019); region of interest,
scale and rotation as in MediaPipe's ``face_landmark`` graphs (Apache-2.0).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from perception.tflite import TfliteModel

RIGHT_EYE_OUTER, LEFT_EYE_OUTER = 33, 263
_MARGIN = 1.5  # the square that the network sees is this much longer than the face box


@dataclass(frozen=True, slots=True)
class FaceRegion:
    """A rotated square in the image: centre in pixels, side in pixels, angle in radians (clockwise on screen)."""

    centre: np.ndarray
    side: float
    angle: float

    @classmethod
    def around(cls, box: np.ndarray, eyes: np.ndarray) -> FaceRegion:
        """The region for a face box ``[4]`` whose eyes ``[2, 2]`` (right, left) are to lie level."""
        across = eyes[1] - eyes[0]
        side = _MARGIN * float((box[2:] - box[:2]).max())
        return cls((box[:2] + box[2:]) / 2, side, float(np.arctan2(across[1], across[0])))

    @classmethod
    def of_landmarks(cls, points: np.ndarray) -> FaceRegion:
        """The region for the next frame from landmarks ``[468, 2]`` of this one."""
        eyes = points[[RIGHT_EYE_OUTER, LEFT_EYE_OUTER]]
        return cls.around(bounds(points), eyes)


class FaceLandmarks:
    """The Face Mesh network."""

    def __init__(self, path: Path) -> None:
        self._model = TfliteModel(path)

    def __call__(self, image: np.ndarray, region: FaceRegion) -> tuple[np.ndarray, float]:
        """Landmarks of the face in ``region`` of a uint8 RGB image.

        Returns:
            float32 ``[468, 3]``: x and y in pixels of the image, z in the same unit, smaller is nearer; and the
            network's probability, 0…1, that the region shows a face.
        """
        size = self._model.side
        turn = np.array(
            [[np.cos(region.angle), -np.sin(region.angle)], [np.sin(region.angle), np.cos(region.angle)]], np.float64
        )
        scale = region.side / size
        to_image = np.empty((2, 3))
        to_image[:, :2] = turn * scale
        to_image[:, 2] = region.centre - to_image[:, :2] @ np.full(2, (size - 1) / 2)
        # Bilinear without a low-pass, as MediaPipe has it; shrinking large faces by area first changed nothing.
        crop = cv2.warpAffine(
            image, to_image, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderValue=0
        )
        points, logit = self._model(crop.astype(np.float32) / 255)
        points = points.reshape(-1, 3)
        placed = np.empty_like(points)
        placed[:, :2] = points[:, :2] @ to_image[:, :2].T + to_image[:, 2]
        placed[:, 2] = points[:, 2] * scale
        return placed, float(1 / (1 + np.exp(-logit.item())))


def bounds(points: np.ndarray) -> np.ndarray:
    """Axis-parallel box float32 ``[..., 4]`` (x1, y1, x2, y2) of landmarks ``[..., 468, 2 or 3]``."""
    return np.concatenate([points[..., :2].min(-2), points[..., :2].max(-2)], -1)
