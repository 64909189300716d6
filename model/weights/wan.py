"""Keys of Wan's own checkpoints (``wan/modules/model.py``): a stream's names, without the stream."""

from __future__ import annotations

from model.config import Stream


def to_stream(key: str | None, stream: Stream) -> str | None:
    """Our name of Wan's ``key`` in one of the streams; None stays None."""
    if key is None:
        return None
    if key.startswith("blocks."):
        _, index, rest = key.split(".", 2)
        return f"blocks.{index}.{stream}.{rest}"
    return f"{stream}.{key}"
