"""What the guarded process of the release job does: a module of its own, its imports are paid at every start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from media.cut import CutClip, VideoFormat, cut_clip


def cut_row(video: VideoFormat, audio_rate: int | None, row: Mapping[str, Any]) -> CutClip:
    """Cut the clip of a row of ``corpus.clip.Clip`` with ``audio_shift_s``; raises as :func:`media.cut.cut_clip`."""
    return cut_clip(
        row["source_uri"],
        row["start_s"],
        row["end_s"],
        video,
        audio_rate=audio_rate,
        audio_shift_s=row["audio_shift_s"],
    )
