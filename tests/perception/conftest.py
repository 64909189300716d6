from __future__ import annotations

import cv2
import numpy as np
import pytest


@pytest.fixture(scope="session")
def grey(portrait: np.ndarray) -> np.ndarray:
    """uint8 [360, 480]: a photograph."""
    return cv2.cvtColor(cv2.resize(portrait, (480, 480), interpolation=cv2.INTER_AREA)[:360], cv2.COLOR_RGB2GRAY)


def enlarged(image: np.ndarray, factor: int, how: int = cv2.INTER_CUBIC) -> np.ndarray:
    """``image`` shrunk by ``factor`` and enlarged to its size again."""
    small = cv2.resize(image, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, image.shape[1::-1], interpolation=how)
