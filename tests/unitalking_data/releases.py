"""Small releases, written with the same functions as real ones."""

from __future__ import annotations

import hashlib
import io
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from unitalking_data.manifest import MANIFEST, SUCCESS, FileEntry, Manifest, ShardEntry, SplitTotals
from unitalking_data.schema import INDEX_SCHEMA, meta_schema
from unitalking_data.shard import pack, shard_name, write_shard
from unitalking_data.storage import Store

SPLITS = {"train": [7, 3, 9, 5, 6], "val": [4]}
CLIPS = sum(SPLITS["train"])
CAPTIONS = {
    "video_detailed": "A person in a blue room, number {}.",
    "video_short": "Person {}.",
    "fused": "Person {} says hello {}.",
    "audio_caption": "A voice, number {}.",
    "transcript": "hello {}",
}


def members(key: str, number: int, rng: random.Random) -> dict[str, bytes]:
    """Stand-ins for media: bytes of any kind, named as in a release; every third clip has no references."""
    found = {"mp4": rng.randbytes(rng.randrange(100, 3000)), "wav": rng.randbytes(600)}
    if number % 3:
        found |= {f"ref{take}.wav": f"{key} take {take}".encode() for take in range(3)}
    return found | {"json": json.dumps({"key": key, "number": number}).encode()}


def latents(key: str, number: int, rng: random.Random) -> dict[str, bytes]:
    array = io.BytesIO()
    np.save(array, np.full((2, 3), number, np.float16))
    return {"video.npy": array.getvalue(), "ref0.audio.npy": array.getvalue()}


def write_release(
    root: str,
    splits: Mapping[str, Sequence[int]],
    *,
    captions: bool = True,
    encoder: str | None = None,
    make=members,
    make_latents=latents,
) -> Manifest:
    """A release with shards of the given numbers of clips; ``encoder`` adds ``latents/<encoder>/``."""
    store = Store(root)
    manifest = _write(store, "media/", splits, captions, make)
    if encoder:
        folder = Store(f"{root}/latents/{encoder}")
        made = _write(folder, "", splits, captions, make_latents)
        finish(folder, replace(made, version=encoder, process={"release": manifest.build}))
    return finish(store, manifest)


def finish(store: Store, manifest: Manifest) -> Manifest:
    store.write_bytes(MANIFEST, manifest.dumps())
    store.write_bytes(SUCCESS, b"")
    return manifest


def _write(store: Store, folder: str, splits, captions: bool, make) -> Manifest:
    rng, number, shards, files, totals = random.Random(0), 0, [], [], {}
    for split, sizes in splits.items():
        rows = []
        for size in sizes:
            shard, clips = len(shards), []
            for _ in range(size):
                clips.append((f"{split}_{number:04}", number))
                number += 1
            written = write_shard(
                store,
                f"{folder}{shard_name(split, shard)}",
                (pack(key, make(key, number, rng)) for key, number in clips),
            )
            keys = [key for key, _ in clips]
            part = f"meta/part-{shard:06d}.parquet" if folder else ""
            if part:
                store.write_table(part, meta(split, shard, clips, captions))
            shards.append(
                ShardEntry(
                    f"{folder}{shard_name(split, shard)}", written.bytes, written.sha256, size, keys[0], keys[-1], part
                )
            )
            rows += [
                {"key": place.key, "shard": shard, "offset": place.offset, "size": place.size, "crc32": place.crc32}
                | {"duration_s": 2.0 + number % 5, "width": 64 * (1 + number % 2), "height": 64, "fingerprint": ""}
                for place, (_, number) in zip(written.places, clips)
            ]
        index = f"{folder}{split}.index.parquet"
        store.write_table(index, pa.Table.from_pylist(rows, INDEX_SCHEMA))
        data = store.read_bytes(index)
        files.append(FileEntry(index, len(data), hashlib.sha256(data).hexdigest(), len(rows)))
        totals[split] = SplitTotals(len(rows), len(sizes), sum(s.bytes for s in shards), 0.0, index)
    return Manifest("v1", "", "build", totals, shards, files)


def meta(split: str, shard: int, clips: Sequence[tuple[str, int]], captions: bool) -> pa.Table:
    rows = []
    for key, number in clips:
        row = {"key": key, "split": split, "shard": shard, "source": f"source {number // 2}", "licence": "CC0-1.0"}
        row |= {"provenance": "{}", "verdict": "kept", "duration_s": 2.0 + number % 5, "frames": 48, "fps": 24.0}
        row |= {"width": 64 * (1 + number % 2), "height": 64, "audio_rate": 44100, "audio_channels": 1}
        row |= {"video_cut": "generated", "audio_shift_s": 0.0}
        rows.append(row | ({name: text.format(number, number) for name, text in CAPTIONS.items()} if captions else {}))
    return pa.Table.from_pylist(rows, meta_schema())
