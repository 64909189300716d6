from __future__ import annotations

import numpy as np

from engine.items import Clip
from engine.stage import OpenClip
from media.clip import ClipMedia
from media.planes import Planes


def opened(media: ClipMedia) -> OpenClip:
    return OpenClip(Clip("k", "a.mp4", "c", 0, media.duration_s, media.width, media.height, 25, 16_000), media)


def silent_clip(frames: np.ndarray, scale: int = 1) -> ClipMedia:
    """A clip without audio whose source is ``scale`` times as large as ``frames``."""
    height, width = frames.shape[1:3]
    return ClipMedia(len(frames) / 25, width=width * scale, height=height * scale, fps=25.0, planes=Planes(frames))
