"""Puts the page together and writes it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from curation.report.data import VERDICTS, ReportInput
from curation.report.gallery import Runner, choose, demand, measure_titles, number, one_by_one, tiles
from curation.report.measures import Histogram, is_numeric, judge, measure, measure_names, values_and_states
from curation.report.summary import quarantine_counts, reason_counts, summarise, verdict_counts, with_verdicts
from curation.report.thumbnails import COLUMNS, WAVE_HEIGHT, Thumbnail

QUARANTINE_ROWS = 500
PLOT = (400, 120)
_HERE = Path(__file__).parent
_MARKS = {"kept": "✓", "dropped": "✕", "undecided": "?", "quarantined": "!"}


def build(report: ReportInput, out_dir: str | Path, *, clips: int = 300, run: Runner = one_by_one) -> Path:
    """Write ``index.html`` and ``summary.json`` into a local folder; each appears whole or not at all.

    Args:
        clips: most clips that the gallery shows, spread over verdicts and reasons.
        run: makes the thumbnails, ``run(function, refs) -> results or exceptions``, in the refs' order; give one
            that works in guarded subprocesses where the media cannot be trusted (function and refs pickle).

    Returns:
        Path of ``index.html``.
    """
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    report = replace(report, scores=with_verdicts(report.scores))
    judgement = judge(report)
    ruled = {view.rule.score for view in judgement.rules}
    others = [
        measure(report.scores, name, *values_and_states(report.scores, name), marks=())
        for name in measure_names(report.scores)
        if name not in ruled and is_numeric(report.scores.schema.field(name).type)
    ]
    shown = tiles(report, choose(report.scores, clips), run)
    summary = summarise(report, judgement, others, [tile.key for tile in shown])
    page = (
        _environment()
        .get_template("template.html")
        .render(
            report=report,
            summary=summary,
            judgement=judgement,
            others=others,
            tiles=shown,
            filters=_filters(report, shown),
            quarantine=report.quarantine[:QUARANTINE_ROWS],
            quarantine_counts=quarantine_counts(report),
            funnel=_funnel(report),
            titles=measure_titles(report),
            busiest=max((stage.get("cpu_seconds") or 0 for stage in report.stages), default=0),
            sweeps=[[sweep.as_json(view.measure.histogram) for sweep in view.sweeps] for view in judgement.rules],
            facts={name: value for name, value in report.run.items() if name != "config"},
        )
    )
    _write(out / "summary.json", json.dumps(summary, indent=1).encode())
    _write(out / "index.html", page.encode("utf-8", "backslashreplace"))
    return out / "index.html"


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": lambda value: f"{value:,}",
        "number": number,
        "percent": percent,
        "seconds": duration,
        "bytes": size,
        "bars": bars,
        "peak": peak,
        "rate": lambda value: number(value if value is None else float(f"{value:.3g}")),
        "moment": lambda text: f"{text}".replace("T", " ").replace("+00:00", " UTC"),
    }
    environment.globals |= {
        "asset": lambda name: Markup((_HERE / name).read_text(encoding="utf-8")),
        "demand": demand,
        "mark": _MARKS,
        "verdicts": VERDICTS,
        "plot": PLOT,
        "wave": (COLUMNS, WAVE_HEIGHT),
        "place": place,
        "ticks": ticks,
        "is_picture": lambda media: isinstance(media, Thumbnail),
    }
    return environment


def _funnel(report: ReportInput) -> list[dict[str, Any]]:
    """Steps with their share of the widest step of the same unit and of the step before."""
    rows, widest, before = [], {}, {}
    for step in report.funnel:
        widest[step.unit] = max(widest.get(step.unit, 0), step.count)
    for step in report.funnel:
        lost = before.get(step.unit, step.count) - step.count
        rows.append({"step": step, "share": step.count / (widest[step.unit] or 1), "lost": lost})
        before[step.unit] = step.count
    return rows


def _filters(report: ReportInput, shown: Sequence[Any]) -> dict[str, list[dict[str, Any]]]:
    """Gallery buttons: verdicts and reasons that occur, with how many tiles and how many clips carry them."""
    verdict_rows = [
        {"name": name, "shown": sum(tile.verdict == name for tile in shown), "all": count}
        for name, count in verdict_counts(report.scores).items()
        if count
    ]
    reason_rows = [
        {"name": row["reason"], "shown": sum(row["reason"] in tile.reasons for tile in shown), "all": row["any"]}
        for row in reason_counts(report.scores)
    ]
    return {"verdict": verdict_rows, "reason": reason_rows}


def bars(histogram: Histogram) -> str:
    """SVG path of the bars in a box of ``PLOT``; a bin that is not empty is at least 1.5 units high."""
    width, height = PLOT
    step = width / len(histogram.counts)
    tallest = histogram.counts.max() or 1
    path = []
    for i, count in enumerate(histogram.counts.tolist()):
        if count:
            tall = max(1.5, (height - 4) * count / tallest)
            path.append(f"M{i * step + 0.4:.5g} {height}v{-tall:.4g}h{step - 0.8:.4g}v{tall:.4g}z")
    return "".join(path)


def place(bins: Histogram, bound: str, threshold: float) -> float:
    """Where a bound stands on a histogram's axis, in units of ``PLOT``."""
    edges = bins.edges
    return float(round((bins.border(bound, threshold) - edges[0]) / (edges[-1] - edges[0]) * PLOT[0], 2))


def ticks(bins: Histogram) -> list[tuple[float, str]]:
    """(percent of the axis, label): each whole number where they are few, else both ends and the middle."""
    count = len(bins.counts)
    if bins.whole:
        chosen = range(count) if count <= 12 else (0, count // 2, count - 1)
        marks = [((i + 0.5) / count, bins.edges[i] + 0.5) for i in chosen]
    else:
        marks = [(i / count, bins.edges[i]) for i in (0, count // 2, count)]
    labels = [number(float(f"{value:.6g}")) for _, value in marks]
    labels[0] = f"≤ {labels[0]}" if bins.below else labels[0]
    labels[-1] = f"≥ {labels[-1]}" if bins.above else labels[-1]
    return [(round(100 * share, 2), label) for (share, _), label in zip(marks, labels, strict=True)]


def percent(part: float, whole: float = 1.0) -> str:
    """ "12.3 %", and "<0.1 %" rather than a zero that is none; "–" of nothing."""
    if not whole:
        return "–"
    share = 100 * part / whole
    if 0 < share < 0.1:
        return "<0.1 %"
    return f"{share:.1f} %" if share < 99.95 or part == whole else ">99.9 %"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds >= 7200:
        return f"{seconds / 3600:,.1f} h"
    if seconds >= 120:
        return f"{seconds / 60:.1f} min"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def peak(dbfs: float) -> str:
    """ "peak −7 dBFS", or "silent"."""
    return f"peak {number(round(dbfs))} dBFS" if math.isfinite(dbfs) else "silent"


def size(count: float | None) -> str:
    if count is None:
        return "–"
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
