"""DOVER (Wu et al. 2023, github.com/VQAssessment/DOVER): learned video quality, from its ONNX export.

The export takes ``aes_view`` (the whole frame, small) and ``tech_view`` (small pieces at full size, side by side),
and answers the aesthetic and the technical score. It is given by path; the project ships none.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np

from perception.onnx import open_model

_SIDE = 224
_LENGTH = 32
_TECHNICAL_STEP = 2
_PIECES = 7
_MEAN = np.array([123.675, 116.28, 103.53], np.float32)
_DEVIATION = np.array([58.395, 57.12, 57.375], np.float32)


class Dover:
    """``Dover(path, providers)(frames)`` gives the :attr:`columns`.

    The pieces are cut from the shared frames, not from the source's full size, and from the middle of their cells,
    not at random, so that a clip always gets the same score; both differ from the authors' script.
    """

    columns: ClassVar[tuple[str, ...]] = ("vqa", "vqa_technical", "vqa_aesthetic")

    def __init__(self, path: Path, providers: Sequence[str]) -> None:
        self._session = open_model(path, providers)
        technical = next(entry for entry in self._session.get_inputs() if entry.name == "tech_view")
        self._clips = technical.shape[0] if isinstance(technical.shape[0], int) else 3

    def __call__(self, frames: np.ndarray) -> dict[str, float]:
        """``frames``: uint8 RGB ``[T, h, w, 3]`` at 25 frames a second."""
        views = {"aes_view": whole_view(frames), "tech_view": pieces_view(frames, self._clips)}
        aesthetic, technical = (float(np.mean(score)) for score in self._session.run(None, views))
        # The authors' fusion (evaluate_one_video.py).
        fused = (technical - 0.1107) / 0.07355 * 0.6104 + (aesthetic - 0.08285) / 0.03774 * 0.3896
        return {"vqa": 1 / (1 + float(np.exp(-fused))), "vqa_technical": technical, "vqa_aesthetic": aesthetic}


def whole_view(frames: np.ndarray) -> np.ndarray:
    """float32 ``[1, 3, 32, 224, 224]``: 32 frames spread over the clip."""
    chosen = np.linspace(0, len(frames) - 1, _LENGTH).round().astype(int)
    small = [cv2.resize(frames[index], (_SIDE, _SIDE), interpolation=cv2.INTER_LINEAR) for index in chosen]
    return _normalise(np.stack(small))[None]


def pieces_view(frames: np.ndarray, clips: int) -> np.ndarray:
    """float32 ``[clips, 3, 32, 224, 224]``: 32 frames at 12.5 a second, from ``clips`` places of the clip."""
    reach = (_LENGTH - 1) * _TECHNICAL_STEP
    views = []
    for start in np.linspace(0, max(0, len(frames) - 1 - reach), clips).round().astype(int):
        chosen = np.minimum(start + np.arange(_LENGTH) * _TECHNICAL_STEP, len(frames) - 1)
        views.append(_normalise(np.stack([_pieces(frames[index]) for index in chosen])))
    return np.stack(views)


def _pieces(image: np.ndarray) -> np.ndarray:
    """7 × 7 squares of 32 px from the middle of the cells of a 7 × 7 grid, joined."""
    scale = _SIDE / min(image.shape[:2])
    if scale > 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    side = _SIDE // _PIECES
    rows, columns = (
        (np.arange(_PIECES) * length // _PIECES + (length // _PIECES - side) // 2).clip(0, length - side)
        for length in image.shape[:2]
    )
    return np.vstack([np.hstack([image[y : y + side, x : x + side] for x in columns]) for y in rows])


def _normalise(frames: np.ndarray) -> np.ndarray:
    return ((frames.astype(np.float32) - _MEAN) / _DEVIATION).transpose(3, 0, 1, 2)
