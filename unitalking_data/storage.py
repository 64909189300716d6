"""Files under a root folder, local or any fsspec URL, with writes that appear whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from unitalking_data.extras import missing_extra

_PARTIAL = re.compile(r"\..+\.[0-9a-f]{8}")


class Store:
    """Atomic files under a root folder; paths are relative, with forward slashes.

    Args:
        root: local folder or fsspec URL, ``s3://bucket/prefix`` for one.

    Attributes:
        fs, protocol: the fsspec file system of the root; ``local`` is True where it is this machine's.

    Raises:
        ImportError: the package that reads such a URL is not installed (for ``s3://`` the extra ``s3``).
        ValueError: from any method, on a path that leaves the root.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = str(root)
        self.fs, base = _file_system(self.root)
        self._base = base.rstrip("/")
        self.protocol = self.fs.protocol if isinstance(self.fs.protocol, str) else self.fs.protocol[0]
        self.local = self.protocol == "file"
        self._arrow = pa.fs.PyFileSystem(pa.fs.FSSpecHandler(self.fs))

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return Store, (self.root,)

    def path(self, name: str) -> str:
        """Absolute path of ``name`` in the store's file system, protocol stripped."""
        if name.startswith("/") or ".." in name.split("/"):
            raise ValueError(f"{name!r} leaves the folder {self.root}")
        return f"{self._base}/{name}" if name else self._base

    def exists(self, name: str) -> bool:
        return self.fs.exists(self.path(name))

    def files(self, folder: str, suffix: str = ".parquet") -> list[str]:
        """Finished files directly in ``folder``, sorted; partial ones are never listed."""
        path = self.path(folder)
        # A listing cache would hide what other processes wrote.
        self.fs.invalidate_cache()
        if not self.fs.exists(path):
            return []
        names = (entry.rsplit("/", 1)[-1] for entry in self.fs.ls(path, detail=False))
        chosen = (name for name in names if name.endswith(suffix) and not name.startswith("."))
        return sorted(f"{folder}/{name}" if folder else name for name in chosen)

    def folders(self, folder: str) -> list[str]:
        path = self.path(folder)
        self.fs.invalidate_cache()
        if not self.fs.exists(path):
            return []
        entries = self.fs.ls(path, detail=True)
        return sorted(entry["name"].rstrip("/").rsplit("/", 1)[-1] for entry in entries if entry["type"] == "directory")

    def write_bytes(self, name: str, data: bytes) -> None:
        if not self.local:  # an object store shows an upload only when it is complete
            self.fs.pipe_file(self.path(name), data)
            return
        with self.writing(name) as path:
            path.write_bytes(data)

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A local file to fill, which takes its name in the store when the block ends, and is removed if it fails."""
        target = self.path(name)
        if not self.local:
            with tempfile.TemporaryDirectory() as folder:
                partial = Path(folder) / "partial"
                yield partial
                self.fs.put_file(str(partial), target)
            return
        final = Path(target)
        final.parent.mkdir(parents=True, exist_ok=True)
        partial = final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}")
        try:
            yield partial
            with partial.open("rb+") as stream:
                os.fsync(stream.fileno())
            partial.replace(final)
        finally:
            partial.unlink(missing_ok=True)

    def adopt(self, other: Store, name: str) -> None:
        """Take over a file of another store under the same name.

        It is a hard link on one disk, a copy by the store itself within one object store, and an ordinary copy
        otherwise.
        """
        if not self.local and self.fs == other.fs:
            self.fs.cp_file(other.path(name), self.path(name))
            return
        with self.writing(name) as partial:
            if self.local and other.local:
                try:
                    os.link(other.path(name), partial)
                    return
                except OSError:  # another disk, or one without links
                    shutil.copyfile(other.path(name), partial)
            else:
                other.fs.get_file(other.path(name), str(partial))

    def read_bytes(self, name: str) -> bytes:
        return self.fs.cat_file(self.path(name))

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset`` on; fewer where the file ends."""
        return self.fs.cat_file(self.path(name), start=offset, end=offset + size)

    def write_json(self, name: str, value: Any) -> None:
        self.write_bytes(name, json.dumps(value, indent=1, sort_keys=True).encode())

    def read_json(self, name: str) -> Any:
        return json.loads(self.read_bytes(name))

    def write_table(self, name: str, table: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        self.write_bytes(name, sink.getvalue().to_pybytes())

    def read_table(
        self,
        names: Sequence[str],
        columns: Sequence[str] | None = None,
        filters: Sequence[tuple[str, str, Any]] | None = None,
    ) -> pa.Table:
        """Rows of the named Parquet files, in their order; a column that a file lacks is null.

        Args:
            filters: (column, comparison, value); only rows that pass all of them are read.
        """
        options = {"columns": list(columns) if columns else None, "filters": list(filters) if filters else None}
        tables = [pq.read_table(self.path(name), filesystem=self._arrow, **options) for name in names]
        return pa.concat_tables(tables, promote_options="default")

    def delete(self, names: Sequence[str]) -> None:
        for name in names:
            self.fs.rm_file(self.path(name))

    def open(self, name: str) -> BinaryIO:
        """The file for reading, seekable."""
        return self.fs.open(self.path(name), "rb")

    def walk(self) -> list[str]:
        """Every file below the root, sorted, hidden ones too."""
        self.fs.invalidate_cache()
        return sorted(path[len(self._base) + 1 :] for path in self.fs.find(self._base))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes of this machine out of a local root while the block runs; the folder is made.

        Object stores and some file systems have no locks; there the block runs without one.

        Raises:
            BlockingIOError: another process has it.
        """
        if not self.local:
            yield
            return
        Path(self._base).mkdir(parents=True, exist_ok=True)
        handle = os.open(self._base, os.O_RDONLY)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
                    raise
            yield
        finally:
            os.close(handle)

    def remove_partial_files(self, *, but: str = "") -> None:
        """Delete files that killed writers left under a temporary name. No other process may be writing.

        Args:
            but: a folder to leave alone, where another process may be writing.
        """
        partial = [name for name in self.walk() if _PARTIAL.fullmatch(name.rsplit("/", 1)[-1])]
        self.delete([name for name in partial if not but or not name.startswith(f"{but}/")])

    def scan(self, folder: str) -> Iterator[pa.Table]:
        """The tables of a folder one file at a time."""
        for name in self.files(folder):
            yield self.read_table([name])


def _file_system(root: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a folder or URL, and the path in it."""
    try:
        return fsspec.core.url_to_fs(root)
    except ImportError as error:
        cause = error.__cause__
        if isinstance(cause, ModuleNotFoundError) and cause.name == "s3fs":
            raise missing_extra("s3", "s3fs", root) from None
        raise
