"""Cut one clip in the release job's guarded process.

A module of its own: every start of such a process pays for its imports.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from media.cut import CutClip, VideoFormat, cut_clip


def cut_row(video: VideoFormat, audio_rate: int | None, row: Mapping[str, Any]) -> CutClip:
    """Cut the clip of a row of ``engine.items.Clip`` with ``audio_shift_s``; raises as :func:`media.cut.cut_clip`."""
    return cut_clip(
        row["source_uri"],
        row["start_s"],
        row["end_s"],
        video,
        audio_rate=audio_rate,
        audio_shift_s=row["audio_shift_s"],
    )
