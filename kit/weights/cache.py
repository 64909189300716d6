"""The cache of model files: where they lie, what is there, and whether it is what it should be."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from kit.weights.entries import Reference, Weight, WeightFile, WeightsError, is_registered, lookup, parse
from kit.weights.pins import LOCK, Pin, read_pins

# Files from this size on are hashed again before a run only where size or time of change are not those of the fetch.
TRUSTED_BYTES = 256 << 20

FETCH = "python -m kit.weights fetch"


def cache_dir() -> Path:
    """``$UNITALKING_CACHE``, else ``unitalking`` under the user's cache folder."""
    if root := os.environ.get("UNITALKING_CACHE"):
        return Path(root)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "unitalking"


def weights_dir() -> Path:
    """Folder of the model files and their lock file."""
    return cache_dir() / "weights"


@dataclass(frozen=True)
class CachedFile:
    """A file of an entry and its place in the cache.

    Attributes:
        name: of the entry.
        file: path in the entry's folder, ``""`` where it has one file.
        path: in the cache, whether it is there or not.
        stated: by the registry.
        pin: how it was fetched, None where it was not or before there was a lock file.
    """

    name: str
    file: str
    path: Path
    stated: WeightFile
    pin: Pin | None

    @property
    def text(self) -> str:
        return f"{self.name}/{self.file}" if self.file else self.name

    @property
    def key(self) -> str:
        """In the lock file."""
        return self.path.relative_to(weights_dir()).as_posix()

    @property
    def sha256(self) -> str | None:
        """What its content must have."""
        return self.stated.sha256 or (self.pin.sha256 if self.pin else None)

    @property
    def hash_state(self) -> Literal["published", "pinned locally", "none"]:
        return "published" if self.stated.sha256 else "pinned locally" if self.pin else "none"

    def check(self, *, whole: bool = False) -> None:
        """
        Args:
            whole: read large files too that look untouched.

        Raises:
            WeightsError: its content is not what it should be.
        """
        expected = self.sha256
        if expected is None or (not whole and self._untouched(expected)):
            return
        actual = file_hash(self.path) if not whole else hash_of(self.path)
        if actual != expected:
            raise WeightsError(f"{self.text}: {self.path} has sha256 {actual}, {self._origin()}")

    def _untouched(self, expected: str) -> bool:
        stat, pin = self.path.stat(), self.pin
        known = pin is not None and (pin.sha256, pin.bytes, pin.mtime_ns) == (expected, stat.st_size, stat.st_mtime_ns)
        return known and stat.st_size >= TRUSTED_BYTES

    def _origin(self) -> str:
        if self.stated.sha256:
            return f"the registry says {self.stated.sha256}; delete it and fetch again"
        return (
            f"but {self.pin.sha256} was pinned when it was first fetched ({self.pin.date}, {self.pin.source}); delete "
            f"it and fetch again or, if the new file is meant, remove {self.key!r} from {weights_dir() / LOCK}"
        )


def cached_path(text: str) -> Path:
    """Place in the cache of ``NAME``, or of the file or folder ``NAME/PATH`` of an entry."""
    reference = parse(text)
    return _entry_path(reference.name, reference.weight) / reference.inner


def cached_files(reference: Reference) -> Iterator[CachedFile]:
    """Files of the entry that are meant, with what the lock file says of them."""
    pins, folder = read_pins(weights_dir()), _entry_path(reference.name, reference.weight)
    for file, stated in reference.files.items():
        path = folder / file
        pin = pins.get(path.relative_to(weights_dir()).as_posix())
        yield CachedFile(reference.name, file, path, stated, pin)


def find(text: str, overrides: Mapping[str, str | Path] | None = None) -> Path | None:
    """The file or folder of a model: an explicit path, else the cache; ``None`` when it is not there whole.

    Raises:
        WeightsError: an explicit path that does not exist.
    """
    explicit = (overrides or {}).get(text)
    if explicit is not None:
        path = Path(explicit).expanduser()
        if not (path.is_dir() if lookup(text).files else path.is_file()):
            raise WeightsError(f"{text}: no {'folder' if lookup(text).files else 'file'} at the given path {path}")
        return path
    there = all(file.path.is_file() for file in cached_files(parse(text)))
    return cached_path(text) if there else None


def resolve(names: Iterable[str], overrides: Mapping[str, str | Path] | None = None) -> dict[str, Path]:
    """Paths of all ``names``, checked against the hashes of the registry and of the lock file.

    Raises:
        WeightsError: naming every missing file and the command that fetches them all, or a file that is another.
    """
    found = {name: find(name, overrides) for name in names}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        uses = "\n".join(f"  {name}: {parse(name).weight.use} ({where(parse(name).weight)})" for name in missing)
        raise WeightsError(
            f"missing model files:\n{uses}\nfetch them with: {FETCH} {' '.join(missing)}\n"
            f"or give a path: --set weights.{missing[0]}=FILE"
        )
    paths = {name: path for name, path in found.items() if path is not None}
    for name in paths:
        # An explicit path is the user's own choice of file (a retrained model, say): its own hash enters the
        # stage's fingerprint, so it is never mistaken for the registered one.
        if name not in (overrides or {}):
            _check(name)
    return paths


def locate(values: Iterable[str | Path]) -> dict[str, Path]:
    """Where the values of configuration fields lie, each a path or a registered model (``NAME`` or ``NAME/PATH``).

    A path that exists is taken before a registered model.

    Returns:
        Paths by the values as texts; those of registered models are checked.

    Raises:
        WeightsError: naming all that are nowhere in one line, and the command that fetches the registered ones; a
            file in the cache is another than it should be.
    """
    places: dict[str, Path] = {}
    unknown: list[str] = []
    missing: list[str] = []
    for value in dict.fromkeys(map(str, values)):
        path = Path(value).expanduser()
        if path.exists():
            places[value] = path
        elif not is_registered(value):
            unknown.append(value)
        elif (cached := find(value)) is None:
            missing.append(value)
        else:
            places[value] = cached
    problems = []
    if unknown:
        problems.append(f"no such file, folder or registered model: {', '.join(unknown)}")
    if missing:
        problems.append(f"not in the cache: {', '.join(missing)}; fetch with: {FETCH} {' '.join(missing)}")
    if problems:
        raise WeightsError("; ".join(problems))
    for value, path in places.items():
        if path != Path(value).expanduser():
            _check(value)
    return places


def _check(text: str) -> None:
    for file in cached_files(parse(text)):
        file.check()


def file_hash(path: Path) -> str:
    """sha256 of a file, read once in this process while its size and time of change stay."""
    stat = path.stat()
    return _file_hash(path, stat.st_size, stat.st_mtime_ns)


@lru_cache
def _file_hash(path: Path, size: int, mtime_ns: int) -> str:
    return hash_of(path)


def hash_of(path: Path, algorithm: str = "sha256") -> str:
    """Of the file's content as it is now."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def where(weight: Weight) -> str:
    """Size and sources, for messages."""
    sizes = [file.bytes for file in weight.parts.values()]
    size = f"{sum(filter(None, sizes)) / 1e6:.1f} MB, " if all(sizes) else ""
    return size + (", ".join(source.text for source in weight.sources) or "by path only")


def _entry_path(name: str, weight: Weight) -> Path:
    return weights_dir() / f"{name}-{weight.revision}{'' if weight.files else _suffix(weight)}"


def _suffix(weight: Weight) -> str:
    """Of the only file, as its first source names it."""
    for source in weight.sources:
        name = source.members[0] if source.members else source.file or source.url or ""
        return "".join(Path(name.rsplit("/", 1)[-1]).suffixes[-1:])
    return ""
