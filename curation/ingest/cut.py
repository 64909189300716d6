"""Shots become clips: a pure function of the probed sources, the settings and the splitter's version."""

from __future__ import annotations

import json
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import PositiveFloat, model_validator

from engine.items import Clip, clip_key, schema_of
from kit.config import Strict

TOLERANCE_S = 1e-3  # shots are stored as float32: 0.5 ms at two hours

OUTCOMES = ("clips", "too_short", "duplicate", "failed")
OUTCOME_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False, metadata={"description": "key of the source"}),
        pa.field("uri", pa.string(), nullable=False, metadata={"description": "URI of the source"}),
        pa.field("outcome", pa.string(), nullable=False, metadata={"description": f"one of {', '.join(OUTCOMES)}"}),
        pa.field("clips", pa.int64(), nullable=False, metadata={"description": "clips cut from it"}),
        pa.field("duplicate_of", pa.string(), metadata={"description": "key of the source with the same bytes"}),
    ]
)


class CutConfig(Strict):
    """How shots become clips.

    Attributes:
        min_s: shortest clip in seconds.
        max_s: longest clip in seconds; longer shots are divided.
        margin_frames: frames next to a cut that are left out.
    """

    min_s: PositiveFloat = 3.0
    max_s: PositiveFloat = 10.0
    margin_frames: int = 1

    @model_validator(mode="after")
    def _ordered(self) -> CutConfig:
        if self.min_s > self.max_s:
            raise ValueError(f"min_s ({self.min_s}) is above max_s ({self.max_s})")
        return self


class Cut(NamedTuple):
    """``clips`` are rows of :class:`engine.items.Clip`; ``outcomes`` has one row a source, ``OUTCOME_SCHEMA``."""

    clips: pa.Table
    outcomes: pa.Table


def cut(sources: pa.Table, config: CutConfig, splitter: str) -> Cut:
    """Clips of ``min_s`` to ``max_s`` within the shots, and what became of every source.

    A span (a shot, or a listed segment's part in one shot) longer than ``max_s`` is divided evenly into as few
    clips as hold it. Where even clips would be shorter than ``min_s`` (possible only if ``min_s > max_s / 2``),
    clips of ``max_s`` are taken from its start and the rest is left. Of sources with the same bytes the first
    by URI is cut. Clips are sorted by URI and start; the order of ``sources`` does not matter.

    Args:
        sources: the columns of :class:`engine.items.Source`, ``status`` and the values of
            :class:`curation.ingest.source.SourceStage` (null unless ``status`` is ``value``).
        splitter: version and settings of the shot detector, part of every clip's key.
    """
    sources = sources.sort_by("uri")
    first_of = _first_with_same_content(sources)
    rows = np.arange(sources.num_rows)
    spans = _spans(sources, rows[first_of == rows], config)
    row, clips = _clip_rows(sources, spans, config, splitter)

    counts = np.bincount(row, minlength=len(rows))
    outcome = np.where(counts > 0, "clips", "too_short").astype(object)
    outcome[first_of != rows] = "duplicate"
    outcome[first_of < 0] = "failed"
    keys = np.array(sources["key"].to_pylist(), dtype=object)
    duplicate_of = np.where(outcome == "duplicate", keys[first_of], None) if len(rows) else keys
    columns = [sources["key"], sources["uri"], pa.array(outcome), pa.array(counts), pa.array(duplicate_of, pa.string())]
    return Cut(clips, pa.table(columns, schema=OUTCOME_SCHEMA))


def _first_with_same_content(sources: pa.Table) -> np.ndarray:
    """For each row of the sorted table the first row with its content; −1 where the source failed."""
    content = pc.if_else(pc.equal(sources["status"], "value"), sources["content"], None)
    codes = content.combine_chunks().dictionary_encode().indices
    codes = pc.fill_null(codes, -1).to_numpy(zero_copy_only=False)
    present = np.flatnonzero(codes >= 0)
    _, first, inverse = np.unique(codes[present], return_index=True, return_inverse=True)
    result = np.full(len(codes), -1)
    result[present] = present[first[inverse]]
    return result


class _Spans(NamedTuple):
    """Uncut stretches of one shot: row of the source, bounds in seconds, provenance."""

    source: np.ndarray
    start: np.ndarray
    end: np.ndarray
    provenance: np.ndarray


def _spans(sources: pa.Table, chosen: np.ndarray, config: CutConfig) -> _Spans:
    table = sources.take(pa.array(chosen))
    shots = table["shots"].combine_chunks()
    flat = shots.flatten()
    source = pc.list_parent_indices(shots).to_numpy()
    start = flat.field("start_s").to_numpy(zero_copy_only=False).astype(np.float64)
    end = flat.field("end_s").to_numpy(zero_copy_only=False).astype(np.float64)
    duration = table["duration_s"].to_numpy()[source]
    fps = table["fps"].to_numpy()[source]
    margin = np.divide(config.margin_frames, fps, out=np.zeros_like(fps), where=fps > 0)
    # Only a cut needs a margin: the file's own ends are clean.
    start = np.where(start > TOLERANCE_S, start + margin, 0.0)
    end = np.where(end < duration - TOLERANCE_S, end - margin, duration)

    provenance = np.array(table["provenance"].to_pylist(), dtype=object)[source]
    listed = np.array([bool(text) for text in table["segments"].to_pylist()], dtype=bool)
    within = listed[source] if len(source) else np.zeros(0, bool)
    columns = [[column[~within]] for column in (source, start, end, provenance)]
    for row in np.flatnonzero(listed):
        own = slice(*np.searchsorted(source, (row, row + 1)))
        for segment_start, segment_end, segment_provenance in json.loads(table["segments"][int(row)].as_py()):
            text = json.dumps(segment_provenance, ensure_ascii=False)
            parts = (
                source[own],
                np.maximum(start[own], segment_start),
                np.minimum(end[own], segment_end),
                np.full(len(source[own]), text, dtype=object),
            )
            for column, part in zip(columns, parts, strict=True):
                column.append(part)
    source, start, end, provenance = (np.concatenate(column) for column in columns)
    long_enough = end - start >= config.min_s - TOLERANCE_S
    order = np.lexsort((end, start, source))
    order = order[long_enough[order]]
    return _Spans(chosen[source[order]], start[order], end[order], provenance[order])


def _divide(spans: _Spans, config: CutConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each clip its span's number, start and end."""
    length = spans.end - spans.start
    pieces = np.maximum(np.ceil((length - TOLERANCE_S) / config.max_s), 1)
    too_small = length + TOLERANCE_S < pieces * config.min_s
    pieces = np.where(too_small, pieces - 1, pieces).astype(np.int64)
    step = np.minimum(length / pieces, config.max_s)
    owner = np.repeat(np.arange(len(length)), pieces)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    start = spans.start[owner] + number * step[owner]
    return owner, np.round(start, 6), np.round(start + step[owner], 6)


def _clip_rows(sources: pa.Table, spans: _Spans, config: CutConfig, splitter: str) -> tuple[np.ndarray, pa.Table]:
    """The clips and for each the row of its source."""
    owner, start, end = _divide(spans, config)
    contents = np.array(sources["content"].to_pylist(), dtype=object)[spans.source[owner]]
    keys = [clip_key(*parts, splitter) for parts in zip(contents, start.tolist(), end.tolist(), strict=True)]
    # Listed segments may overlap, and then give one and the same clip twice.
    codes = pa.array(keys, pa.string()).dictionary_encode().indices.to_numpy()
    kept = np.sort(np.unique(codes, return_index=True)[1])

    owner = owner[kept]
    row = spans.source[owner]
    copied = sources.select(["content", "width", "height", "fps", "audio_rate", "licence", "uri"]).take(pa.array(row))
    columns = {
        "key": pa.array(keys, pa.string()).take(pa.array(kept)),
        "source_uri": copied["uri"],
        "start_s": pa.array(start[kept]),
        "end_s": pa.array(end[kept]),
        "provenance": pa.array(spans.provenance[owner], pa.string()),
    }
    schema = schema_of(Clip)
    columns |= {name: copied[name] for name in schema.names if name not in columns}
    return row, pa.table({name: columns[name] for name in schema.names}).cast(schema)
