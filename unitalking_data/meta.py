"""Rows of ``meta/`` for the clips that are being read. A part is read whole when the first of its clips is."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import pyarrow.parquet as pq

from unitalking_data.manifest import Manifest, ManifestError
from unitalking_data.schema import check_version
from unitalking_data.storage import Store

OPEN_PARTS = 64


class MetaRows:
    """Chosen columns of the clips of a release, found by shard number and key.

    Args:
        store: the release.
        columns: names of ``meta/`` columns; one that the release lacks is None for every clip.
    """

    def __init__(self, store: Store, manifest: Manifest, columns: Sequence[str]) -> None:
        self._store, self._columns = store, tuple(columns)
        self._parts = {(shard.split, shard.number): shard.part for shard in manifest.shards}
        self._pid = os.getpid()
        self._rows = lru_cache(OPEN_PARTS)(self._read)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_rows"}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)
        self._rows = lru_cache(OPEN_PARTS)(self._read)

    def row(self, split: str, shard: int, key: str) -> dict[str, Any]:
        """The clip's columns.

        Raises:
            ManifestError: the part of this shard is missing, of another schema version, or lacks the clip.
        """
        part = self._parts.get((split, shard))
        if not part:
            raise ManifestError(f"{self._store.root}: the manifest names no meta part for shard {split}-{shard:06d}")
        rows = self._rows(part)
        if key not in rows:
            raise ManifestError(f"{self._store.root}/{part} has no row for clip {key} of shard {split}-{shard:06d}")
        return dict.fromkeys(self._columns) | rows[key]

    def _read(self, part: str) -> dict[str, dict[str, Any]]:
        if self._pid != os.getpid():  # connections do not survive a fork
            self._store, self._pid = Store(self._store.root), os.getpid()
        name = f"{self._store.root}/{part}"
        try:
            with self._store.fs.open(self._store.path(part), "rb") as stream:
                file = pq.ParquetFile(stream)
                check_version(file.schema_arrow, name)
                there = set(file.schema_arrow.names)
                table = file.read(columns=["key", *(column for column in self._columns if column in there)])
        except FileNotFoundError:
            raise ManifestError(f"{name} is missing") from None
        return {row["key"]: row for row in table.to_pylist()}
