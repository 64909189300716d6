"""Releases of generated clips, built by the real writer."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.release.card import write_documents
from pipelines.release.split import assign_splits
from unitalking_data.manifest import Manifest
from unitalking_data.schema import REFS_SCHEMA, meta_schema
from unitalking_data.writer import ClipFiles, RejectedClip, ReleaseWriter, WriteDocuments

SHARES = {"train": 0.7, "val": 0.3}
MEDIA = {
    "duration_s": 2.0,
    "frames": 48,
    "fps": 24.0,
    "width": 64,
    "height": 32,
    "audio_rate": 16_000,
    "audio_channels": 1,
    "video_cut": "generated",
    "audio_shift_s": 0.0,
}


def keys(first: int, last: int) -> list[str]:
    return [hashlib.md5(str(number).encode()).hexdigest() for number in range(first, last)]


def rows(of: Sequence[str], **changed: Any) -> pa.Table:
    """Rows of ``meta/`` before the clips are made: three clips a source, named for its first digit."""
    return pa.Table.from_pylist(
        [
            {"key": key, "source": source_of(key), "licence": "CC-BY-4.0", "provenance": "{}", "verdict": "kept"}
            | {"video_short": f"clip {key[:4]} | <b>", "language": "en", "start_s": 0.0, "end_s": 2.0}
            | changed
            for key in of
        ]
    )


def source_of(key: str) -> str:
    return f"source {key[:2]}"


def make(of: Sequence[str], *, wait_s: float = 0.0, broken: Sequence[str] = ()) -> Iterator[ClipFiles | RejectedClip]:
    for key in of:
        time.sleep(wait_s)
        if key in broken:
            yield RejectedClip("its source is gone")
            continue
        data = hashlib.sha256(key.encode()).digest()
        yield ClipFiles({"mp4": data * (20 + data[0]), "wav": data * 4, "ref0.wav": data, "ref1.wav": data}, MEDIA)


def refs(of: Sequence[str]) -> pa.Table:
    return pa.Table.from_pylist(
        [{"key": key, "take": take, "text": "hello", "licence": "MIT"} for key in of for take in (0, 1)],
        schema=REFS_SCHEMA,
    )


def build(
    root: str | Path,
    of: Sequence[str],
    *,
    previous: str | Path | None = None,
    version: str = "v",
    fingerprint: Callable[[str], str] = lambda key: f"of {key}",
    shares: Mapping[str, float] = SHARES,
    splits: Sequence[str] | None = None,
    wait_s: float = 0.0,
    broken: Sequence[str] = (),
    rejected: Sequence[pa.Table] = (),
    shard_clips: int = 8,
    changed: Mapping[str, Any] | None = None,
    documents: WriteDocuments | None = write_documents,
) -> Manifest:
    """Build or continue a release of these clips."""
    writer = ReleaseWriter(str(root), meta_schema(), str(previous) if previous else None)
    clips = pa.table({"key": of, "source": [source_of(key) for key in of]})
    before = writer.previous.index.select(["key", "split"]) if previous else None
    split = assign_splits(clips, ["source"], shares, before=before) if splits is None else pa.array(splits)
    plan = pa.table({"key": of, "split": split, "fingerprint": [fingerprint(key) for key in of]})
    process = {"title": "Generated clips", "limits": ["nobody talks"]}
    for shard in writer.begin(version, plan, splits=list(shares), shard_clips=shard_clips, process=process):
        writer.write(
            shard,
            rows(shard.keys, **(changed or {})),
            lambda some: make(some, wait_s=wait_s, broken=broken),
            refs(shard.keys),
        )
    return writer.finish(rejected, **({"documents": documents} if documents else {}))


def tree(root: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
