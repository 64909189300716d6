"""Reads byte ranges of shards, from a local disk, a cache folder or an object store."""

from __future__ import annotations

import os
import zlib
from collections import OrderedDict
from typing import BinaryIO

from unitalking_data.manifest import ShardEntry
from unitalking_data.shard import ShardError
from unitalking_data.shard_cache import ShardCache
from unitalking_data.storage import Store

OPEN_SHARDS = 128


class ShardReader:
    """Reads byte ranges of shards and checks them against the index.

    Local shards are opened in place. Remote ones are downloaded whole into the cache if there is one, otherwise each
    range is one request. A reader works in a forked or spawned worker, but not in several threads at once.
    """

    def __init__(self, store: Store, cache: ShardCache | None = None) -> None:
        self._store, self._cache = store, cache
        self._pid = os.getpid()
        self._open: OrderedDict[str, BinaryIO] = OrderedDict()
        self._buffer = bytearray()

    def __reduce__(self) -> tuple[type[ShardReader], tuple[Store, ShardCache | None]]:
        return ShardReader, (self._store, self._cache)

    def read(self, shard: ShardEntry, offset: int, size: int, crc32: int) -> memoryview:
        """``size`` bytes from ``offset``, valid until the next call, which uses the buffer again.

        Raises:
            FileNotFoundError: the shard is missing.
            ShardError: the shard has another length than the manifest says, or these bytes are damaged (of a shard
                that is downloaded, any bytes).
            OSError: the storage failed.
        """
        if self._pid != os.getpid():  # connections do not survive a fork
            self._store, self._pid = Store(self._store.root), os.getpid()
        try:
            run = self._range(shard, offset, size)
        except FileNotFoundError:
            raise FileNotFoundError(f"shard {shard.path} is missing from {self._store.root}") from None
        except OSError as error:
            raise OSError(f"shard {shard.path} of {self._store.root} cannot be read: {error}") from error
        if len(run) != size or zlib.crc32(run) != crc32:
            raise ShardError(
                f"shard {shard.path} of {self._store.root} is damaged: the {size:,} bytes from {offset:,} "
                f"do not have the checksum of the index"
            )
        return run

    def _range(self, shard: ShardEntry, offset: int, size: int) -> memoryview:
        if not self._store.local and self._cache is None:
            return memoryview(self._store.read_range(shard.path, offset, size))
        stream = self._open.get(shard.path)
        if stream is None:
            stream = self._open[shard.path] = self._opened(shard)
            if len(self._open) > OPEN_SHARDS:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(shard.path)
        if len(self._buffer) < size:
            self._buffer = bytearray(size)
        run = memoryview(self._buffer)[:size]
        return run[: os.preadv(stream.fileno(), [run], offset)]

    def _opened(self, shard: ShardEntry) -> BinaryIO:
        path = self._store.path(shard.path)
        if self._cache is not None and not self._store.local:
            return self._cache.open(self._store.fs, path, size=shard.bytes, sha256=shard.sha256)
        stream = open(path, "rb", buffering=0)  # noqa: SIM115, PTH123 — kept open between calls
        length = os.fstat(stream.fileno()).st_size
        if length != shard.bytes:
            stream.close()
            raise ShardError(
                f"shard {shard.path} of {self._store.root} has {length:,} bytes, the manifest says {shard.bytes:,}"
            )
        return stream
