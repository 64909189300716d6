"""Fetching: a model's files from the first source that has them into the cache, each whole or not at all."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from kit.weights.cache import CachedFile, cached_files, cached_path, hash_of, weights_dir
from kit.weights.download import Download, FileHeaders
from kit.weights.entries import FetchError, Reference, Weight, WeightsError, WeightSource, hub_endpoint, parse
from kit.weights.pins import Pin, record

_logger = logging.getLogger(__name__)


def fetch(text: str) -> Path:
    """Download what is not in the cache of ``NAME``, or of the file or folder ``NAME/PATH`` of an entry.

    Files that have come stay when a later one fails; another call goes on there.

    Returns:
        The file or folder.

    Raises:
        FetchError: no source gave a file with the registered hash and size.
        WeightsError: no such model; a file in the cache is another than the registered or pinned one.
    """
    reference = parse(text)
    for file in cached_files(reference):
        if file.path.is_file() and (file.pin or file.stated.sha256):
            file.check()
        else:
            _fetch(reference, file)
    if reference.weight.commercial is False:
        _logger.info(f"note: {reference.name} is under {reference.weight.licence}: no commercial use")
    return cached_path(text)


def _fetch(reference: Reference, file: CachedFile) -> None:
    file.path.parent.mkdir(parents=True, exist_ok=True)
    with _partial_of(file.path) as partial:
        if partial is None:  # it is there: another process has just finished it, or it is older than the lock file
            (file,) = (now for now in cached_files(reference) if now.path == file.path)
            file.check()
            if file.sha256 is None:
                _pin(file, file.path, "was in the cache", FileHeaders())
            return
        problems = []
        for source in reference.weight.sources:
            try:
                stated = _bring(source, reference.weight, file, partial)
                _accept(file, partial, stated)
            except (WeightsError, OSError, subprocess.CalledProcessError, zipfile.BadZipFile) as error:
                detail = getattr(error, "stderr", None) or error
                problems.append(f"{source.text}: {str(detail).strip()[-500:]}")
                continue
            _pin(file, partial, source.text, stated)
            partial.replace(file.path)
            return
        reasons = "; ".join(problems) or "it has no source: give a path with --set weights.<name>=FILE"
        raise FetchError(f"could not fetch {file.text}: {reasons}")


def _bring(source: WeightSource, weight: Weight, file: CachedFile, partial: Path) -> FileHeaders:
    """Complete ``partial`` from a source."""
    if source.package is not None:
        _unpack(source, partial)
        return FileHeaders()
    url = source.address(weight.revision, file.file)
    token = os.environ.get("HF_TOKEN") if source.hub and url.startswith(f"{hub_endpoint()}/") else None
    known = file.sha256 is not None
    return Download(url, partial, file.text, token=token, bytes=file.stated.bytes, known=known).run()


def _accept(file: CachedFile, partial: Path, stated: FileHeaders) -> None:
    """
    Raises:
        FetchError: it is not the file of the registry, of the lock file or of the server; ``partial`` is emptied.
    """
    size, sha256 = partial.stat().st_size, hash_of(partial)
    expected = [
        ("the registry", file.stated.bytes, size, "bytes"),
        ("the server", stated.bytes, size, "bytes"),
        ("the registry", file.stated.sha256, sha256, "sha256"),
        ("the lock file", None if file.stated.sha256 else file.sha256, sha256, "sha256"),
        ("the server", stated.sha256, sha256, "sha256"),
    ]
    if file.stated.md5:
        expected.append(("the registry", file.stated.md5, hash_of(partial, "md5"), "md5"))
    for who, wanted, found, what in expected:
        if wanted is not None and wanted != found:
            os.truncate(partial, 0)
            more = (
                f"; if it was published anew, remove {file.key!r} from the lock file" if who == "the lock file" else ""
            )
            raise FetchError(f"what came has {what} {found}, {who} says {wanted}{more}")


def _pin(file: CachedFile, path: Path, source: str, stated: FileHeaders) -> None:
    """Write the file's record; where no hash is published, it is binding from now on, which is said."""
    stat, sha256 = path.stat(), file.stated.sha256 or hash_of(path)
    pin = Pin(
        name=file.name,
        file=file.file,
        sha256=sha256,
        bytes=stat.st_size,
        mtime_ns=stat.st_mtime_ns,
        source=source,
        commit=stated.commit,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    if file.sha256 is None:
        _logger.info(f"{file.text}: no published hash: pinned sha256 {sha256} at first fetch")
    record(weights_dir(), file.key, pin)


@contextmanager
def _partial_of(target: Path) -> Iterator[Path | None]:
    """The file that ``target`` is written to first, this process's alone; None once ``target`` is there.

    What has come stays when the block fails; an empty file goes.
    """
    partial = target.with_name(f".{target.name}.partial")
    while True:
        handle = os.open(partial, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _wait_for(handle, target)
            ours = _is_at(handle, partial)
            if target.is_file():
                if ours:
                    partial.unlink()
                yield None
                return
            if ours:  # or else the process that had it before has moved or removed it
                try:
                    yield partial
                finally:
                    _tidy(partial)
                return
        finally:
            os.close(handle)


def _wait_for(handle: int, target: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _logger.info(f"another process fetches {target.name}: waiting for it")
        fcntl.flock(handle, fcntl.LOCK_EX)


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _tidy(partial: Path) -> None:
    """Leave nothing beside a finished file, nor an empty one."""
    if partial.exists() and partial.stat().st_size:
        return
    partial.unlink(missing_ok=True)
    partial.with_name(f"{partial.name}.etag").unlink(missing_ok=True)


def _unpack(source: WeightSource, target: Path) -> None:
    """The members of a source's wheels, one after another; nothing is installed."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--dest", folder, *source.packages]
        subprocess.run(command, check=True, capture_output=True, text=True)
        wheels = [zipfile.ZipFile(path) for path in sorted(Path(folder).glob("*.whl"))]
        with target.open("r+b") as out:
            out.truncate(0)
            for member in source.members:
                wheel = next((wheel for wheel in wheels if member in wheel.namelist()), None)
                if wheel is None:
                    raise FetchError(f"no member {member} in {', '.join(source.packages)}")
                with wheel.open(member) as stream:
                    shutil.copyfileobj(stream, out)
