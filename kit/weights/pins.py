"""The lock file beside the cached files: what was fetched, and the hashes that no publisher states.

``weights.lock.json`` has a record for each downloaded file, by its path in the cache. Where the registry has no hash,
the record's is binding from the first fetch on.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from kit.config import Strict
from kit.weights.entries import Sha256, WeightsError

LOCK = "weights.lock.json"


class Pin(Strict):
    """A file as it was fetched.

    Attributes:
        name, file: the entry, and the path in its folder (``""`` where it has one file).
        mtime_ns: time of the file's last change, by which an untouched file is known without reading it.
        source: where it came from; ``commit`` is what the hub took the revision for.
        date: UTC, ISO 8601.
    """

    name: str
    file: str
    sha256: Sha256
    bytes: int
    mtime_ns: int
    source: str
    commit: str | None = None
    date: str


_RECORDS = TypeAdapter(dict[str, Pin])


def read_pins(folder: Path) -> dict[str, Pin]:
    """Records by path in ``folder``, the cache.

    Raises:
        WeightsError: the lock file cannot be read.
    """
    path = folder / LOCK
    try:
        return _RECORDS.validate_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as error:
        raise WeightsError(f"{path} cannot be read ({str(error).splitlines()[0]}): restore it, or delete it") from None


def record(folder: Path, key: str, pin: Pin) -> None:
    """Add or replace a record; other processes may do the same."""
    with _changing(folder):
        content = {**read_pins(folder), key: pin}
        partial = folder / f".{LOCK}.partial"
        partial.write_text(json.dumps({k: v.model_dump() for k, v in sorted(content.items())}, indent=1), "utf-8")
        partial.replace(folder / LOCK)


@contextmanager
def _changing(folder: Path) -> Iterator[None]:
    handle = os.open(folder / f".{LOCK}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
