"""How a head is turned, from the 468-point face mesh."""

from __future__ import annotations

import numpy as np

_RIGHT_CHEEK, _LEFT_CHEEK, _FOREHEAD, _CHIN = 234, 454, 10, 152


def head_pose(landmarks: np.ndarray) -> np.ndarray:
    """Yaw, pitch and roll in degrees, float32 ``[n, 3]``, of landmarks ``[n, 468, 3]``.

    The head's axes are the line between the cheeks and the line from forehead to chin. Yaw is positive when the face
    turns to the image's right, pitch when it looks up, roll when it tilts clockwise on screen. The mesh's depth is
    itself an estimate: beyond 45° or so the angles come out too small.
    """
    across = _unit(landmarks[:, _LEFT_CHEEK] - landmarks[:, _RIGHT_CHEEK])
    down = landmarks[:, _CHIN] - landmarks[:, _FOREHEAD]
    down = _unit(down - (down * across).sum(1, keepdims=True) * across)
    yaw = np.arctan2(across[:, 2], np.hypot(across[:, 0], across[:, 1]))
    pitch = -np.arcsin(np.clip(down[:, 2], -1, 1))
    roll = np.arctan2(across[:, 1], across[:, 0])
    return np.degrees(np.stack([yaw, pitch, roll], 1)).astype(np.float32)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
