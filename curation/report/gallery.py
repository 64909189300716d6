"""Which clips the gallery shows, and what stands on each of their tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.report.data import ReportInput
from curation.report.measures import description, is_numeric, measure_names, stage_of
from curation.report.thumbnails import COLUMNS, ClipRef, Thumbnail, thumbnail
from curation.select import VERDICTS
from curation.thresholds import Threshold
from kit.web.numbers import number

_TEXT = 160
_SPARK_POINTS = 60

# Makes the thumbnails: for each ref, in order, what the function returned or the exception it ended with.
Runner = Callable[[Callable[[ClipRef], Thumbnail], Sequence[ClipRef]], Sequence[Thumbnail | Exception]]


@dataclass(frozen=True, slots=True)
class Cell:
    """One score of one clip, ready to print: text, or a drawing over the clip's time.

    ``spark`` is an SVG path in 100 × 20; ``spans`` are (start, length) in percent of the clip; ``breaks``
    says which thresholds the value does not meet.
    """

    name: str
    text: str = ""
    spark: str = ""
    spans: tuple[tuple[float, float], ...] = ()
    breaks: str = ""


@dataclass(frozen=True, slots=True)
class StageCells:
    name: str
    status: str
    detail: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Tile:
    """One clip of the gallery. ``media`` is the thumbnail or the message why there is none."""

    key: str
    source_uri: str
    row: dict[str, Any]
    verdict: str
    reasons: tuple[str, ...]
    pending: tuple[str, ...]
    stages: tuple[StageCells, ...]
    speech: tuple[tuple[float, float], ...]
    media: Thumbnail | str

    @property
    def name(self) -> str:
        return self.source_uri.rsplit("/", 1)[-1] or self.source_uri


def one_by_one(function: Callable[[ClipRef], Thumbnail], refs: Sequence[ClipRef]) -> list[Thumbnail | Exception]:
    """The plain runner, in this process: an exception costs one tile; a crash of the decoder would cost the report."""
    results: list[Thumbnail | Exception] = []
    for ref in refs:
        try:
            results.append(function(ref))
        except Exception as error:
            results.append(error)
    return results


def choose(scores: pa.Table, limit: int) -> list[int]:
    """Up to ``limit`` rows, spread evenly over verdicts and reasons, the kept ones counted as three reasons.

    Within each group the smallest keys are taken: keys are hashes, so that is a random but repeatable choice.
    """
    lists = scores["reasons"].combine_chunks()
    flat = pc.list_flatten(lists).dictionary_encode()
    parents, codes = pc.list_parent_indices(lists).to_numpy(), flat.indices.to_numpy()
    groups = [parents[codes == code] for code in range(len(flat.dictionary))]
    for verdict, share in (("kept", 3), ("undecided", 1), ("quarantined", 1)):
        groups += [np.flatnonzero(pc.equal(scores["verdict"], verdict).to_numpy())] * share
    queues = [_first_keys(scores["key"], group, limit) for group in sorted(groups, key=len)]
    chosen: set[int] = set()
    for place, queue in enumerate(queues):
        quota = -(-(limit - len(chosen)) // (len(queues) - place))
        fresh = [row for row in queue if row not in chosen]
        chosen.update(fresh[: max(0, quota)])
    return _ordered(scores, list(chosen))


def _first_keys(keys: pa.ChunkedArray, rows: np.ndarray, limit: int) -> list[int]:
    """The ``limit`` rows with the smallest keys, in order of key."""
    table = pa.table({"key": keys.take(pa.array(rows, pa.int64())), "row": rows})
    return table.take(pc.select_k_unstable(table, limit, [("key", "ascending")]))["row"].to_pylist()


def _ordered(scores: pa.Table, rows: list[int]) -> list[int]:
    """Kept first, then by first reason, then by key."""
    picked = scores.select(["key", "verdict", "reasons"]).take(pa.array(rows, pa.int64())).to_pylist()
    rank = {
        row: (VERDICTS.index(clip["verdict"]), (clip["reasons"] or [""])[0], clip["key"])
        for row, clip in zip(rows, picked, strict=True)
    }
    return sorted(rows, key=rank.__getitem__)


def tiles(report: ReportInput, rows: Sequence[int], run: Runner) -> list[Tile]:
    """The tiles of these rows; a clip whose media fail gets its message in place of the picture."""
    shown = report.scores.take(pa.array(rows, pa.int64()))
    clips = shown.to_pylist()
    media = run(thumbnail, [ClipRef(clip["source_uri"], clip["start_s"], clip["end_s"]) for clip in clips])
    if len(media) != len(clips):
        raise RuntimeError(f"the thumbnail runner answered {len(media)} of {len(clips)} clips")
    names = measure_names(shown)
    return [_tile(report, shown.schema, names, clip, image) for clip, image in zip(clips, media, strict=True)]


def _tile(
    report: ReportInput, schema: pa.Schema, names: list[str], clip: dict[str, Any], image: Thumbnail | Exception
) -> Tile:
    seconds = clip["end_s"] - clip["start_s"]
    stages = []
    for stage in dict.fromkeys(stage_of(name) for name in names):
        own = [name for name in names if stage_of(name) == stage]
        cells = tuple(_cell(schema.field(name).type, name, clip[name], seconds, report.rules) for name in own)
        status, detail = clip[f"{stage}.status"] or "not run", clip.get(f"{stage}.detail") or ""
        stages.append(StageCells(stage, status, detail, cells if status == "value" else ()))
    speech = clip.get(report.speech) if report.speech else None
    return Tile(
        key=clip["key"],
        source_uri=clip["source_uri"],
        row={name: value for name, value in clip.items() if "." not in name},
        verdict=clip["verdict"],
        reasons=tuple(clip["reasons"] or ()),
        pending=tuple(clip["pending"] or ()),
        stages=tuple(stages),
        speech=spans(speech or [], seconds, COLUMNS),
        media=image if isinstance(image, Thumbnail) else f"{image}" or type(image).__name__,
    )


def _cell(kind: pa.DataType, name: str, value: Any, seconds: float, rules: Sequence[Threshold]) -> Cell:
    short = name.split(".", 1)[1]
    if value is None:
        return Cell(short, "–")
    if is_numeric(kind):
        broken = [demand(rule) for rule in rules if rule.score == name and not rule.passes(float(value))]
        return Cell(short, number(value), breaks=", ".join(broken))
    if pa.types.is_list(kind) and is_numeric(kind.value_type):
        return Cell(short, f"{len(value)} values", spark=sparkline(value))
    if pa.types.is_list(kind) and _is_interval(kind.value_type):
        return Cell(short, f"{len(value)}", spans=spans(value, seconds, 100))
    if pa.types.is_list(kind) and pa.types.is_string(kind.value_type):
        return Cell(short, _cut(" · ".join(str(item) for item in value)) or "none")
    if pa.types.is_nested(kind):
        return Cell(short, f"{len(value)} entries")
    return Cell(short, _cut(str(value)))


def _is_interval(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and kind.get_field_index("start_s") >= 0 and kind.get_field_index("end_s") >= 0


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT else text[: _TEXT - 1] + "…"


def demand(rule: Threshold) -> str:
    """The rule in words: "≥ 0.5", "0.1 … 0.9"."""
    if rule.min is None or rule.max is None:
        return f"≥ {number(rule.min)}" if rule.min is not None else f"≤ {number(rule.max)}"
    return f"{number(rule.min)} … {number(rule.max)}"


def spans(intervals: Sequence[dict[str, float]], seconds: float, width: float) -> tuple[tuple[float, float], ...]:
    """(start, length) of each interval that lies in 0…``seconds``, scaled to ``width``."""
    if seconds <= 0:
        return ()
    cut = ((max(0.0, span["start_s"]), min(seconds, span["end_s"])) for span in intervals)
    scale = width / seconds
    return tuple((round(a * scale, 1), round((b - a) * scale, 1)) for a, b in cut if b > a)


def sparkline(values: Sequence[float | None]) -> str:
    """SVG path of a series in 100 × 20, lowest value at the bottom, gaps where there is no value."""
    series = np.array([np.nan if value is None else value for value in values], float)
    if len(series) == 0 or not np.isfinite(series).any():
        return ""
    pick = np.linspace(0, len(series) - 1, min(_SPARK_POINTS, len(series))).round().astype(int)
    series = np.where(np.isfinite(series), series, np.nan)[pick]
    if np.isnan(series).all():
        return ""
    low, high = np.nanmin(series), np.nanmax(series)
    y = 18 - 16 * (series - low) / ((high - low) or 1.0)
    x = np.linspace(0, 100, len(series)) if len(series) > 1 else np.array([50.0])
    gaps = np.isnan(y)
    draws = ["M" if i == 0 or gaps[i - 1] else "L" for i in range(len(y))]
    return "".join(f"{draw}{a:.3g} {b:.3g}" for draw, a, b, gap in zip(draws, x, y, gaps, strict=True) if not gap)


def measure_titles(report: ReportInput) -> dict[str, str]:
    """Description of every value column, for the glossary beside the gallery."""
    return {name: description(report.scores, name) for name in measure_names(report.scores)}
