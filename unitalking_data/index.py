"""The index of a split: one compact table that says where every clip lies, so that opening reads no shard."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from unitalking_data.manifest import Manifest, ManifestError, ShardEntry
from unitalking_data.schema import INDEX_SCHEMA, check_version
from unitalking_data.shard import ShardError
from unitalking_data.storage import Store

COLUMNS = [name for name in INDEX_SCHEMA.names if name != "fingerprint"]


class ClipPlace(NamedTuple):
    """Where a clip's run of tar blocks lies, and the CRC-32 of its bytes."""

    key: str
    shard: ShardEntry
    offset: int
    size: int
    crc32: int


@dataclass(frozen=True, slots=True)
class ClipIndex:
    """A split's samples in the order of shards and of samples within them; ``n`` of them.

    Attributes:
        shards: the split's tars, by number.
        keys: strings ``[n]``.
        shard: int32 ``[n]``, place of each sample's shard in ``shards``.
        offset, size: int64 ``[n]``, the sample's run of tar blocks.
        crc32: uint32 ``[n]``, of those bytes.
        duration_s: float32 ``[n]``, seconds.
        width, height: int32 ``[n]``, pixels.
    """

    shards: tuple[ShardEntry, ...]
    keys: pa.StringArray
    shard: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    crc32: np.ndarray
    duration_s: np.ndarray
    width: np.ndarray
    height: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)

    def place(self, number: int) -> ClipPlace:
        """The place of clip ``number``, 0…len−1."""
        where = (int(column[number]) for column in (self.offset, self.size, self.crc32))
        return ClipPlace(self.keys[number].as_py(), self.shards[self.shard[number]], *where)


def read_index(store: Store, manifest: Manifest, split: str) -> ClipIndex:
    """The index of a split.

    Raises:
        ValueError: there is no such split, or it has no clips.
        ManifestError: the index is missing, of another schema version, or not the one of this manifest.
    """
    shards = manifest.shards_of(split)
    totals = manifest.splits[split]
    if not totals.clips:
        raise ValueError(f"split {split!r} of release {manifest.version} in {store.root} has no clips")
    name = f"{store.root}/{totals.index}"
    try:
        with store.fs.open(store.path(totals.index), "rb") as stream:
            file = pq.ParquetFile(stream)
            check_version(file.schema_arrow, name)
            table = file.read(columns=COLUMNS)
    except FileNotFoundError:
        raise ManifestError(f"{name}, the index of split {split!r}, is missing") from None
    except (pa.ArrowException, OSError) as error:
        raise ManifestError(f"{name}, the index of split {split!r}, cannot be read: {error}") from error
    # by DLPack, for to_numpy would import pandas
    columns = {field: np.from_dlpack(table[field].combine_chunks()) for field in COLUMNS if field != "key"}
    numbers = [entry.number for entry in shards]
    place_of = np.full(max(numbers[-1], int(columns["shard"].max())) + 1, -1, np.int32)
    place_of[numbers] = np.arange(len(shards))
    place = place_of[columns["shard"]]
    if place.min() < 0 or np.any(place[1:] < place[:-1]):
        raise ManifestError(f"{name} does not list the shards of the manifest in their order")
    counts = np.bincount(place, minlength=len(shards))
    for entry, count in zip(shards, counts):
        if entry.clips != count:
            raise ManifestError(f"shard {entry.path}: {count} clips in the index, {entry.clips} in the manifest")
    keys = table["key"].combine_chunks()
    return ClipIndex(tuple(shards), keys, **(columns | {"shard": place}))


def places_of(store: Store, manifest: Manifest, shard: ShardEntry) -> list[ClipPlace]:
    """The clips of one shard in its order. Only the row groups of the index that hold them are read.

    Raises:
        ManifestError: the index is missing, or lacks clips of the shard.
    """
    name = manifest.splits[shard.split].index
    columns = ["key", "offset", "size", "crc32"]
    try:
        rows = store.read_table([name], columns, filters=[("shard", "=", shard.number)]).to_pylist()
    except FileNotFoundError:
        raise ManifestError(f"{store.root}/{name}, the index of split {shard.split!r}, is missing") from None
    if len(rows) != shard.clips:
        raise ManifestError(f"shard {shard.path}: {len(rows)} clips in the index, {shard.clips} in the manifest")
    return [ClipPlace(row["key"], shard, row["offset"], row["size"], row["crc32"]) for row in rows]


def check_shards(store: Store, index: ClipIndex) -> None:
    """Check by one listing a folder that all shards are there, so that none is missed after days of training.

    Raises:
        FileNotFoundError: a shard is missing.
        ShardError: one has not the size that the manifest gives.
    """
    sizes: dict[str, int] = {}
    for folder in sorted({entry.path.rpartition("/")[0] for entry in index.shards}):
        sizes |= {f"{folder}/{name}".lstrip("/"): size for name, size in _sizes(store, folder)}
    for entry in index.shards:
        if entry.path not in sizes:
            raise FileNotFoundError(f"shard {entry.path} is missing from {store.root}")
        if sizes[entry.path] != entry.bytes:
            raise ShardError(
                f"shard {entry.path} of {store.root} has {sizes[entry.path]:,} bytes, the manifest says {entry.bytes:,}"
            )


def _sizes(store: Store, folder: str) -> list[tuple[str, int]]:
    path = store.path(folder)
    try:
        if store.local:  # fsspec's listing takes as long as all the rest of opening
            with os.scandir(path) as entries:
                return [(entry.name, entry.stat().st_size) for entry in entries]
        store.fs.invalidate_cache()
        return [(entry["name"].rsplit("/", 1)[-1], entry["size"]) for entry in store.fs.ls(path, detail=True)]
    except FileNotFoundError:
        return []
