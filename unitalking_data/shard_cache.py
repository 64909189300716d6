"""A bounded folder of downloaded shards that the processes of a machine share."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import fsspec

from unitalking_data.shard import ShardError

BLOCK_BYTES = 16 << 20
WAIT_S = 0.05


class ShardCache:
    """Holds shards by their sha256 and evicts the least recently opened.

    A shard is downloaded once, however many processes ask for it. It is checked while it arrives, and appears whole or
    not at all. A process that has an evicted shard open can still read it. Locks are advisory ``flock``, so the folder
    must be on a local disk.

    Args:
        folder: made if missing; several releases may share it.
        limit_bytes: the files in it never take more, unfinished downloads included.
    """

    def __init__(self, folder: str | Path, limit_bytes: int) -> None:
        self.folder, self.limit_bytes = Path(folder), limit_bytes
        self.folder.mkdir(parents=True, exist_ok=True)

    def open(self, fs: fsspec.AbstractFileSystem, path: str, *, size: int, sha256: str) -> BinaryIO:
        """The shard at ``path`` of ``fs``, opened from the cache, downloaded if need be.

        Raises:
            ShardError: it is not the announced bytes.
            ValueError: the cache is too small for it.
            FileNotFoundError: it is not there.
        """
        target = self.folder / f"{sha256}.tar"
        with suppress(FileNotFoundError):
            return self._opened(target)
        if size > self.limit_bytes:
            raise ValueError(
                f"shard {path} of {size:,} bytes does not fit a cache of {self.limit_bytes:,} bytes: enlarge the cache"
            )
        with self._lock(sha256[:2]):
            with suppress(FileNotFoundError):  # another process was faster
                return self._opened(target)
            partial = target.with_suffix(".part")
            try:
                self._reserve(partial, size)
                self._download(fs, path, partial, size, sha256)
                stream = self._opened(partial)  # under its final name it may be evicted at once
                partial.rename(target)
                return stream
            except BaseException:
                partial.unlink(missing_ok=True)
                raise

    def _opened(self, target: Path) -> BinaryIO:
        stream = target.open("rb", buffering=0)
        os.utime(stream.fileno())  # now the last to be evicted
        return stream

    def _download(self, fs: fsspec.AbstractFileSystem, path: str, partial: Path, size: int, sha256: str) -> None:
        digest, taken = hashlib.sha256(), 0
        with fs.open(path, "rb", cache_type="none") as source, partial.open("r+b") as sink:
            while block := source.read(BLOCK_BYTES):
                taken += len(block)
                if taken > size:
                    break
                digest.update(block)
                sink.write(block)
        if taken != size or digest.hexdigest() != sha256:
            found = f"{'more than ' if taken > size else ''}{taken:,} bytes with sha256 {digest.hexdigest()[:12]}…"
            raise ShardError(f"shard {path} is damaged: {found}, the manifest says {size:,} with {sha256[:12]}…")

    def _reserve(self, partial: Path, size: int) -> None:
        """Make room for the download and claim it with a file of that size."""
        while True:
            with self._lock("room"):
                if self._make_room(size):
                    with partial.open("wb") as stream:
                        stream.truncate(size)
                    return
            time.sleep(WAIT_S)  # until other downloads are finished and can be evicted

    def _make_room(self, size: int) -> bool:
        entries = []
        for path in self.folder.iterdir():
            if path.suffix in (".tar", ".part"):
                with suppress(FileNotFoundError):
                    entries.append((path.stat(), path))
        taken = sum(stat.st_size for stat, _ in entries)
        for stat, path in sorted(entries, key=lambda entry: entry[0].st_mtime_ns):
            if taken + size <= self.limit_bytes:
                break
            if path.suffix == ".tar" or self._abandoned(path):
                path.unlink(missing_ok=True)
                taken -= stat.st_size
        return taken + size <= self.limit_bytes

    def _abandoned(self, partial: Path) -> bool:
        """Whether the process that was downloading it has ended: its lock is free."""
        with (self.folder / f"{partial.name[:2]}.lock").open("a") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        with (self.folder / f"{name}.lock").open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield
