"""The grid's frames through decord, for comparison with pipelines that use it.

PyAV is the default because decord has had no release since 2021 (it bundles FFmpeg 4), reads local files only, shows
frames that an edit list hides before the clip, ignores mirroring and non-square pixels, and reads the whole
index before the first frame. Install it with ``pip install 'unitalking[decord]'``.
"""

from __future__ import annotations

import math

import numpy as np

from media.clip import GRID_FPS, MediaError
from media.collect import COMPLETE, TOLERANCE_S


def grid_frames(
    path: str, start_s: float, end_s: float, frame_side: int
) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """``frames``, ``frame_index`` and ``(width, height)`` of :class:`media.clip.ClipMedia`.

    Raises:
        MediaError: decord cannot decode the file.
        ValueError: decord is not installed, or ``path`` is not a local file.
    """
    try:
        import decord
    except ImportError as error:
        raise ValueError("decoder 'decord' needs the package: pip install 'unitalking[decord]'") from error
    if "://" in path:
        raise ValueError(f"decoder 'decord' reads local files only, not {path!r}")
    try:
        reader = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1)
        height, width = reader[0].shape[:2]
        if (scale := frame_side / max(height, width)) < 1:
            size = {"width": max(1, round(width * scale)), "height": max(1, round(height * scale))}
            reader = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1, **size)
        begins, ends = reader.get_frame_timestamp(np.arange(len(reader))).astype(np.float64).T
        if ends[-1] - start_s < COMPLETE * (end_s - start_s) - TOLERANCE_S:
            raise MediaError(f"{path!r}: decord finds no video after {ends[-1]:.2f} s")
        ticks = start_s + np.arange(math.ceil(round((end_s - start_s) * GRID_FPS, 6))) / GRID_FPS
        shown = np.clip(np.searchsorted(begins, ticks + TOLERANCE_S, side="right") - 1, 0, None)
        needed, place = np.unique(shown, return_inverse=True)
        return reader.get_batch(needed).asnumpy()[place], shown - shown[0], (width, height)
    except (RuntimeError, decord.DECORDError) as error:
        raise MediaError(f"{path!r}: decord cannot decode it: {str(error).splitlines()[0]}") from error
