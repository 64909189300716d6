"""The two thin rows that travel through every job: a source file and a clip of it.

No frames and no bytes are carried: a stage opens the media itself, through :mod:`media`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Source:
    """One file as it was listed, before it was opened.

    Attributes:
        key: identity of the listing row (hash of the URI), unique in a run.
        uri: local path or fsspec URL (``s3://bucket/a.mp4``).
        licence: licence of the media as the listing gives it; ``""`` is unknown.
        provenance: JSON object with the remaining listing columns, verbatim.
        segments: where the listing holds cuts made by others, a JSON array of ``[start_s, end_s, provenance]``,
            sorted; ``""`` means the whole file.
    """

    key: str
    uri: str
    licence: str = ""
    provenance: str = "{}"
    segments: str = ""

    @classmethod
    def of(cls, uri: str, licence: str = "", provenance: str = "{}", segments: str = "") -> Source:
        return cls(stable_hash("source", uri), uri, licence, provenance, segments)


@dataclass(frozen=True, slots=True)
class Clip:
    """A time interval of one source: the unit that is scored, kept and published.

    Attributes:
        key: :func:`clip_key` of content, interval and splitter version.
        source_uri: local path or fsspec URL of the file that holds it.
        content: sha256 of the source's bytes.
        start_s, end_s: interval in seconds on the source's own presentation clock, the earliest
            video timestamp being 0.
        width, height: displayed size in pixels (rotation applied).
        fps: average frame rate of the source in frames per second.
        audio_rate: sampling rate in Hz, 0 when there is no audio stream.
        licence, provenance: copied from the :class:`Source`.
    """

    key: str
    source_uri: str
    content: str
    start_s: float
    end_s: float
    width: int
    height: int
    fps: float
    audio_rate: int
    licence: str = ""
    provenance: str = "{}"

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s


def stable_hash(*parts: object) -> str:
    """128-bit hex digest of the parts, the same on every machine and Python version."""
    text = "\x1f".join(str(part) for part in parts)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def clip_key(content: str, start_s: float, end_s: float, splitter: str) -> str:
    """Identity of a clip: source content, interval in microseconds and splitter version."""
    return stable_hash("clip", content, round(start_s * 1e6), round(end_s * 1e6), splitter)


_ARROW = {"str": pa.string(), "float": pa.float64(), "int": pa.int64()}


def schema_of(row_type: type) -> pa.Schema:
    """Arrow schema of a row dataclass, fields in their order of definition."""
    return pa.schema([pa.field(f.name, _ARROW[f.type], nullable=False) for f in fields(row_type)])


def to_table(rows: Sequence[Source] | Sequence[Clip], row_type: type) -> pa.Table:
    return pa.Table.from_pylist([asdict(row) for row in rows], schema=schema_of(row_type))


def from_table(table: pa.Table, row_type: type) -> Iterable[Source] | Iterable[Clip]:
    names = [f.name for f in fields(row_type)]
    for row in table.select(names).to_pylist():
        yield row_type(**row)
