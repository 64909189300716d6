"""Count what a release consists of, in one pass over its own tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from unitalking_data.schema import ATOM_FIELDS
from unitalking_data.storage import Store

ATOMS = tuple(f.name for f in ATOM_FIELDS)
# Scores of which the card shows the spread, where the release has them.
MEASURES = {"faces.size_px": "face size in pixels", "lip_sync.offset_s": "measured audio offset in seconds"}
_COLUMNS = (
    *("licence", "duration_s", "width", "height", "fps", "audio_rate"),
    *("video_cut", "video_cut_reason", "audio_shift_s", *ATOMS),
)


@dataclass
class Facts:
    """Counts over a release.

    Attributes:
        counts: clips by value, of ``language``, ``licence``, ``size`` (``512×512``), ``fps``, ``audio_rate``,
            ``video_cut`` and ``video_cut_reason``.
        licence_seconds: seconds of media by licence.
        atoms: clips that have each caption atom.
        shifted: clips whose audio was moved.
        durations_s: of every clip.
        measures: values of ``MEASURES`` that the release has.
        filled: rows with a value, by table and column (``meta``: ``lip_sync.offset_s``).
        rows: rows by table.
        references: clips with reference voices.
        reference_licences: takes by licence of their voice.
    """

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    licence_seconds: Counter[str] = field(default_factory=Counter)
    atoms: Counter[str] = field(default_factory=Counter)
    shifted: int = 0
    durations_s: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    measures: dict[str, np.ndarray] = field(default_factory=dict)
    filled: dict[str, Counter[str]] = field(default_factory=dict)
    rows: Counter[str] = field(default_factory=Counter)
    references: int = 0
    reference_licences: Counter[str] = field(default_factory=Counter)


def count_facts(store: Store, parts: Mapping[str, Iterable[str]]) -> Facts:
    """Read the thin columns of the tables, a part at a time.

    Args:
        parts: files by table: ``meta``, ``refs``, ``rejected``.
    """
    facts, durations, measures = Facts(), [], {name: [] for name in MEASURES}
    for table, names in parts.items():
        facts.filled[table] = Counter()
        for name in names:
            with store.open(name) as stream:
                file = pq.ParquetFile(stream)
                facts.rows[table] += file.metadata.num_rows
                _count_filled(file, facts.filled[table])
                if table == "meta":
                    _add_clips(facts, file, durations, measures)
                elif table == "refs":
                    takes = file.read(["key", "licence"])
                    facts.references += len(set(takes["key"].to_pylist()))
                    facts.reference_licences.update(takes["licence"].to_pylist())
    facts.durations_s = np.concatenate(durations) if durations else facts.durations_s
    facts.measures = {name: np.concatenate(each) for name, each in measures.items() if each}
    return facts


def quantiles(values: np.ndarray) -> dict[str, float] | None:
    """Least, 5 %, middle, 95 % and greatest of the finite values; None without any."""
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    return dict(zip(("min", "p5", "median", "p95", "max"), np.quantile(values, (0, 0.05, 0.5, 0.95, 1)).tolist()))


def _count_filled(file: pq.ParquetFile, filled: Counter[str]) -> None:
    """From the files' own statistics: no value is read."""
    for group in range(file.metadata.num_row_groups):
        rows = file.metadata.row_group(group)
        for number in range(rows.num_columns):
            column = rows.column(number)
            if ".list." not in column.path_in_schema and column.statistics is not None:
                filled[column.path_in_schema] += rows.num_rows - (column.statistics.null_count or 0)


def _add_clips(facts: Facts, file: pq.ParquetFile, durations: list[np.ndarray], measures: dict[str, list]) -> None:
    paths = {file.schema.column(number).path for number in range(len(file.schema))}
    table = file.read([*_COLUMNS, *(name for name in MEASURES if name in paths)])
    durations.append(table["duration_s"].to_numpy().astype(np.float32))
    for name, values in measures.items():
        stage, _, column = name.partition(".")
        if name in paths:
            struct = table[stage].combine_chunks()
            values.append(struct.field(column).to_numpy(zero_copy_only=False).astype(np.float32))
    columns = table.select([name for name in _COLUMNS if name not in ATOMS]).to_pydict()
    for licence, seconds, shift in zip(
        columns["licence"], columns["duration_s"], columns["audio_shift_s"], strict=True
    ):
        facts.licence_seconds[licence] += seconds
        facts.shifted += shift != 0
    shown = {name: columns[name] for name in ("licence", "fps", "audio_rate", "video_cut", "video_cut_reason")}
    shown["size"] = [f"{w}×{h}" for w, h in zip(columns["width"], columns["height"], strict=True)]
    shown["language"] = table["language"].to_pylist()
    for name, values in shown.items():
        facts.counts.setdefault(name, Counter()).update(str(v) for v in values if v is not None)
    for name in ATOMS:
        facts.atoms[name] += len(table) - table[name].null_count


def leaves(schema: pa.Schema) -> Iterable[tuple[str, pa.Field]]:
    """Columns by path; those of a struct one by one after it."""
    for column in schema:
        yield column.name, column
        if pa.types.is_struct(column.type):
            for number in range(column.type.num_fields):
                inner = column.type.field(number)
                yield f"{column.name}.{inner.name}", inner
