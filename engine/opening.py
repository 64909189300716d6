"""How a group opens its items."""

from __future__ import annotations

from engine.items import Clip
from engine.stage import OpenClip
from media.decode import decode_clip


def open_clip(clip: Clip, needs: frozenset[str]) -> OpenClip:
    """Decode the parts of a clip that its stages need, in one pass."""
    return OpenClip(clip, decode_clip(clip.source_uri, clip.start_s, clip.end_s, needs=needs))
