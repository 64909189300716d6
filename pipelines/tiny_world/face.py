"""The frames of the tiny world: a head before a wall, whose mouth opens with loudness and is as wide as its word."""

from __future__ import annotations

import numpy as np

from pipelines.tiny_world.world import WORDS, Look, Utterance

SIDE = 32
FPS = 10.0

SKIN_RGB = {
    "pale": (255, 225, 205),
    "rosy": (240, 165, 160),
    "golden": (225, 185, 110),
    "olive": (165, 160, 100),
    "brown": (150, 95, 65),
}
HAIR_RGB = {
    "black": (30, 25, 30),
    "red": (190, 60, 25),
    "blond": (235, 205, 100),
    "grey": (150, 150, 158),
    "blue": (45, 70, 185),
}
WALL_RGB = {
    "white": (235, 235, 230),
    "green": (80, 155, 90),
    "azure": (80, 165, 225),
    "orange": (240, 150, 60),
    "purple": (140, 90, 165),
}
HEAD_RADII = {"round": (10.5, 10.5), "long": (8.0, 12.5)}
MOUTH_RGB = (45, 10, 20)
EYE_RGB = (25, 20, 25)
MOUTH_XY = (16.0, 22.0)
MOUTH_WIDTHS = dict(zip(WORDS, (4.0, 6.0, 8.0, 10.0, 12.0, 14.0)))
MOUTH_HEIGHT = 8.0  # at full loudness
_HEAD_XY = (16.0, 17.0)
_EYES_XY = ((12.0, 13.0), (20.0, 13.0))


def draw(look: Look, utterance: Utterance, *, fps: float = FPS) -> np.ndarray:
    """uint8 ``[frames, SIDE, SIDE, 3]``; frame *k* shows the middle of its time, (k + 1/2) / fps."""
    frames = round(utterance.seconds * fps)
    each = utterance.each((np.arange(frames) + 0.5) / fps)
    video = np.repeat(_still(look)[None], frames, 0)
    for image, word, height in zip(video, each.argmax(0), MOUTH_HEIGHT * each.max(0)):
        _paint(image, MOUTH_RGB, mouth_cover(utterance.words[word], height))
    return np.round(video).astype(np.uint8)


def mouth_cover(word: str, height: float) -> np.ndarray:
    """How much of each pixel is open mouth, 0…1 ``[SIDE, SIDE]``."""
    return _ellipse(MOUTH_XY, (MOUTH_WIDTHS[word] / 2, height / 2))


def _still(look: Look) -> np.ndarray:
    image = np.empty((SIDE, SIDE, 3))
    image[:] = WALL_RGB[look.wall]
    across, down = HEAD_RADII[look.head]
    x, y = _HEAD_XY
    _paint(image, HAIR_RGB[look.hair], _ellipse((x, y - 3.5), (across + 2.0, down + 0.5)))
    _paint(image, SKIN_RGB[look.skin], _ellipse((x, y + 1.5), (across, down - 1.0)))
    for eye in _EYES_XY:
        _paint(image, EYE_RGB, _ellipse(eye, (1.3, 1.3)))
    return image


def _paint(image: np.ndarray, colour: tuple[int, int, int], cover: np.ndarray) -> None:
    image += cover[:, :, None] * (np.array(colour) - image)


def _ellipse(centre: tuple[float, float], radii: tuple[float, float]) -> np.ndarray:
    """Cover of an ellipse whose edge is one pixel wide; below a pixel it becomes fainter instead of smaller."""
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    across, down = (max(radius, 0.5) for radius in radii)
    faint = min(radii[0] / across, 1.0) * min(radii[1] / down, 1.0)
    distance = np.hypot((columns - centre[0]) / across, (rows - centre[1]) / down)
    return faint * np.clip((1 - distance) * min(across, down) + 0.5, 0, 1)
