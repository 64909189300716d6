"""Which clip goes into which shard: a pure function of the clips, and of the release that this one is built over."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unitalking_data.manifest import Manifest, ShardEntry, read_manifest
from unitalking_data.schema import INDEX_SCHEMA, check_version
from unitalking_data.shard import Place, check_key, parse_shard_name, shard_name
from unitalking_data.storage import Store

CLIPS_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("fingerprint", pa.string(), nullable=False),
    ]
)
_OLD = ("old_shard", "old_offset", "old_size", "old_crc32")
LAYOUT_SCHEMA = pa.schema(
    [
        *CLIPS_SCHEMA,
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("old_shard", pa.int32()),
        pa.field("old_offset", pa.int64()),
        pa.field("old_size", pa.int64()),
        pa.field("old_crc32", pa.uint32()),
    ]
)


@dataclass(frozen=True)
class Previous:
    """The release that another is built over.

    Attributes:
        index: its clips, the columns of :data:`unitalking_data.schema.INDEX_SCHEMA` and ``split``.
    """

    store: Store
    manifest: Manifest
    index: pa.Table

    @classmethod
    def open(cls, root: str) -> Previous:
        """Raises ManifestError where there is no finished release of this schema version."""
        store = Store(root)
        manifest = read_manifest(store)
        return cls(store, manifest, read_indexes(store, manifest))


@dataclass(frozen=True)
class ShardLayout:
    """The clips of one shard that is to be written.

    Attributes:
        clips: rows of ``LAYOUT_SCHEMA``; where ``old_shard`` is set, the previous release has the clip unchanged.
        old: the previous release's shard of this number, None where it has none.
    """

    split: str
    number: int
    clips: pa.Table
    old: ShardEntry | None

    @property
    def intact(self) -> bool:
        """Whether nothing of the old shard has changed."""
        return self.old is not None and self.old.clips == len(self.clips) and not self.clips["old_shard"].null_count

    @property
    def path(self) -> str:
        return f"media/{shard_name(self.split, self.number)}"

    @property
    def keys(self) -> list[str]:
        return self.clips["key"].to_pylist()

    def old_places(self) -> dict[str, Place]:
        """Places of the unchanged clips in the previous release's shard of this number."""
        rows = self.clips.select(["key", *_OLD]).to_pylist()
        return {
            row["key"]: Place(row["key"], row["old_offset"], row["old_size"], row["old_crc32"])
            for row in rows
            if row["old_shard"] is not None
        }


def read_indexes(store: Store, manifest: Manifest) -> pa.Table:
    """The indexes of all splits in one table, with the column ``split``."""
    tables = []
    for split, totals in manifest.splits.items():
        table = store.read_table([totals.index])
        check_version(table.schema, totals.index)
        table = table.replace_schema_metadata(None)
        tables.append(table.append_column("split", pa.array([split] * len(table), pa.string())))
    empty = pa.schema([*INDEX_SCHEMA, pa.field("split", pa.string())]).empty_table()
    return pa.concat_tables(tables) if tables else empty


def lay_out_shards(
    clips: pa.Table, splits: Sequence[str], *, shard_clips: int, previous: Previous | None = None
) -> pa.Table:
    """Assign every clip to a shard: rows of ``LAYOUT_SCHEMA``, shard after shard, in the order of the clips in it.

    Shards are numbered through all splits. A clip that the previous release has in the same split stays in its shard.
    New clips make new shards of nearly equal size, in the order of their keys. Keys are hashes, so the clips of one
    source are spread over the shards.

    Args:
        clips: rows of ``CLIPS_SCHEMA``.
        splits: names in the order in which their shards are numbered; each must have clips.
        shard_clips: most clips of a new shard.

    Raises:
        ValueError: a key that cannot name files or stands twice, an unknown split, or one without clips.
    """
    clips = clips.select(CLIPS_SCHEMA.names).cast(CLIPS_SCHEMA)
    _check(clips, splits)
    clips = clips.append_column("rank", pc.index_in(clips["split"], pa.array(splits, pa.string())))
    clips = _with_old(clips, previous)
    new = pc.is_null(clips["home"])
    table = clips.filter(pc.invert(new)).sort_by([("home", "ascending"), ("home_offset", "ascending")])
    table = table.append_column("shard", table["home"])
    fresh = clips.filter(new).sort_by([("rank", "ascending"), ("key", "ascending")])
    last = -1 if previous is None else max((entry.number for entry in previous.manifest.shards), default=-1)
    numbers = _number(fresh["rank"].to_numpy(), shard_clips, last + 1)
    fresh = fresh.append_column("shard", pa.array(numbers, pa.int32()))
    return pa.concat_tables([table, fresh]).select(LAYOUT_SCHEMA.names).cast(LAYOUT_SCHEMA).combine_chunks()


def shards_of(layout: pa.Table, previous: Previous | None) -> list[ShardLayout]:
    """The rows of a layout shard by shard, by number."""
    numbers = layout["shard"].to_numpy()
    bounds = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
    old = {} if previous is None else {entry.number: entry for entry in previous.manifest.shards}
    shards = []
    for begin, end in itertools.pairwise(bounds):
        rows = layout.take(pa.array(np.arange(begin, end)))  # a slice would be pickled with the whole layout
        number = int(numbers[begin])
        shards.append(ShardLayout(rows["split"][0].as_py(), number, rows, old.get(number)))
    return sorted(shards, key=lambda shard: shard.number)


def build_hash(layout: pa.Table, previous: Previous | None, process: Mapping[str, Any]) -> str:
    """Identity of a build: its clips, their shards, the release it is built over and how it is made."""
    digest = hashlib.sha256()
    digest.update(previous.manifest.build.encode() if previous else b"")
    digest.update(json.dumps(process, sort_keys=True).encode())
    for batch in layout.select(["key", "split", "fingerprint", "shard"]).to_batches(max_chunksize=1 << 16):
        digest.update("\n".join("\t".join(map(str, row.values())) for row in batch.to_pylist()).encode())
    return digest.hexdigest()


def _check(clips: pa.Table, splits: Sequence[str]) -> None:
    for split in splits:
        parse_shard_name(shard_name(split, 0))
    for key in clips["key"].to_pylist():
        check_key(key)
    counts = pc.value_counts(clips["key"])
    twice = [row["values"] for row in counts.filter(pc.greater(counts.field("counts"), 1)).to_pylist()]
    if twice:
        raise ValueError(f"clips stand twice in the input: {', '.join(sorted(twice)[:5])} ({len(twice)} in all)")
    found = {row["values"]: row["counts"] for row in pc.value_counts(clips["split"]).to_pylist()}
    if unknown := sorted(set(found) - set(splits)):
        raise ValueError(f"clips are in the splits {', '.join(unknown)}, which are not among {', '.join(splits)}")
    if empty := [split for split in splits if not found.get(split)]:
        raise ValueError(
            f"split {', '.join(empty)} would be empty: of {len(clips)} clips none fell into it; give it a larger "
            "share, or leave it out of the configuration"
        )


def _with_old(clips: pa.Table, previous: Previous | None) -> pa.Table:
    """Add ``home`` (the shard that has the clip), ``home_offset``, and ``old_*`` where the clip has not changed."""
    if previous is None:
        for name, kind in (("home", pa.int32()), ("home_offset", pa.int64())):
            clips = clips.append_column(name, pa.nulls(len(clips), kind))
        for name in _OLD:
            clips = clips.append_column(name, pa.nulls(len(clips), LAYOUT_SCHEMA.field(name).type))
        return clips
    columns = ["key", "split", "shard", "offset", "size", "crc32", "fingerprint"]
    old = previous.index.select(columns).rename_columns(
        ["key", "split", "home", "home_offset", "home_size", "home_crc32", "was"]
    )
    joined = clips.join(old, ["key", "split"], join_type="left outer")
    same = pc.fill_null(pc.equal(joined["fingerprint"], joined["was"]), False)
    for name, home in zip(_OLD, ("home", "home_offset", "home_size", "home_crc32"), strict=True):
        joined = joined.append_column(name, pc.if_else(same, joined[home], None))
    return joined


def _number(rank: np.ndarray, shard_clips: int, first: int) -> np.ndarray:
    """Shard numbers from ``first`` on of clips sorted by split."""
    if shard_clips < 1:
        raise ValueError(f"shards of {shard_clips} clips; give at least 1")
    numbers = np.empty(len(rank), np.int32)
    for value in np.unique(rank):
        mine = np.flatnonzero(rank == value)
        shards = -(-len(mine) // shard_clips)
        numbers[mine] = first + np.arange(len(mine)) * shards // len(mine)
        first += shards
    if first > 1_000_000:
        raise ValueError(f"{first:,} shards; their names hold six digits: make the shards larger")
    return numbers
