"""manifest.json: every file of a release with its size and checksum, and the totals of each split.

A folder of latents has a manifest of the same form. Paths are relative to the manifest's own folder.
"""

from __future__ import annotations

import builtins
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from unitalking_data.schema import SCHEMA_VERSION
from unitalking_data.shard import parse_shard_name
from unitalking_data.storage import Store

MANIFEST = "manifest.json"
SUCCESS = "_SUCCESS"


class ManifestError(ValueError):
    """A manifest is missing, unfinished, or of another version."""


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """One tar.

    Attributes:
        path: ``media/train-000012.tar``.
        bytes, sha256: of the file.
        clips: samples in it.
        first, last: keys of its first and last sample.
        part: table with one row for each of its samples, in the shard's order (``meta/part-000012.parquet``).
    """

    path: str
    bytes: int
    sha256: str
    clips: int
    first: str
    last: str
    part: str = ""

    @property
    def split(self) -> str:
        return parse_shard_name(self.path)[0]

    @property
    def number(self) -> int:
        return parse_shard_name(self.path)[1]


@dataclass(frozen=True, slots=True)
class FileEntry:
    """Any other file; ``rows`` is 0 for one that is not a table."""

    path: str
    bytes: int
    sha256: str
    rows: int = 0


@dataclass(frozen=True, slots=True)
class SplitTotals:
    """Totals of one split.

    Attributes:
        bytes: of its shards; ``seconds``: of its clips.
        index: path of the table of its samples, :data:`unitalking_data.schema.INDEX_SCHEMA`, in the order of shards and
            of samples in them.
        sources, speakers: how many different ones; 0 where unknown.
    """

    clips: int
    shards: int
    bytes: int
    seconds: float
    index: str
    sources: int = 0
    speakers: int = 0


@dataclass(frozen=True, slots=True)
class Manifest:
    """The contents of a release.

    Attributes:
        version: name of the release.
        previous: the version it was built over, ``""`` for none.
        build: hash of everything that went into it; releases with equal hashes are the same.
        splits, shards, files: its contents; ``files`` has neither the manifest itself nor ``_SUCCESS``.
        columns: caption columns, and ``references``, that at least one clip has.
        rejected: how many clips are not published, by verdict.
        process: how it was made, as data: configuration, funnel, thresholds, models.
        schema_version: of all tables.
    """

    version: str
    previous: str
    build: str
    splits: Mapping[str, SplitTotals]
    shards: Sequence[ShardEntry]
    files: Sequence[FileEntry]
    columns: Sequence[str] = ()
    rejected: Mapping[str, int] = field(default_factory=dict)
    process: Mapping[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @property
    def clips(self) -> int:
        return sum(totals.clips for totals in self.splits.values())

    @property
    def bytes(self) -> int:
        return sum(shard.bytes for shard in self.shards) + sum(entry.bytes for entry in self.files)

    def shards_of(self, split: str) -> list[ShardEntry]:
        """Shards of a split by number.

        Raises:
            ValueError: there is no such split.
        """
        if split not in self.splits:
            raise ValueError(f"release {self.version} has no split {split!r}; it has {', '.join(self.splits)}")
        return sorted((shard for shard in self.shards if shard.split == split), key=lambda shard: shard.number)

    def dumps(self) -> builtins.bytes:
        """JSON with a shard or file a line: compact, and readable in a diff."""
        content = asdict(self)
        lists = {name: content.pop(name) for name in ("shards", "files")}
        head = json.dumps(content, indent=1, sort_keys=True)[:-2]
        for name, entries in lists.items():
            lines = ",\n  ".join(json.dumps(entry, sort_keys=True) for entry in entries)
            head += f',\n "{name}": [\n  {lines}\n ]'
        return f"{head}\n}}\n".encode()


def read_manifest(store: Store, *, finished: bool = True) -> Manifest:
    """The manifest in a store's root.

    Args:
        finished: demand that ``_SUCCESS`` is beside it.

    Raises:
        ManifestError: there is none, its release was never finished, it is damaged, or it is of another schema version.
    """
    try:
        data = store.read_bytes(MANIFEST)
    except FileNotFoundError:
        raise ManifestError(f"no {MANIFEST} in {store.root}: not a release, or one that was never finished") from None
    if finished and not store.exists(SUCCESS):
        raise ManifestError(f"{store.root} has no {SUCCESS}: its build was not finished, run it again")
    return parse_manifest(data, f"{store.root}/{MANIFEST}")


def parse_manifest(data: bytes, name: str) -> Manifest:
    """A manifest out of JSON; raises ManifestError with ``name`` as :func:`read_manifest`."""
    try:
        content = json.loads(data)
        version = content.get("schema_version")
        if version != SCHEMA_VERSION:
            raise ManifestError(f"{name}: schema version {version}, this code reads version {SCHEMA_VERSION}")
        content["shards"] = tuple(ShardEntry(**entry) for entry in content["shards"])
        content["files"] = tuple(FileEntry(**entry) for entry in content["files"])
        content["splits"] = {split: SplitTotals(**totals) for split, totals in content["splits"].items()}
        content["columns"] = tuple(content["columns"])
        return Manifest(**content)
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, KeyError, TypeError) as error:
        raise ManifestError(f"{name} is damaged: {error!r}") from None
