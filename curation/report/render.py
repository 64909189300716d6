"""Render the report's page and write it with its summary."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2

from curation.report.data import ReportInput
from curation.report.gallery import Runner, choose, demand, measure_titles, one_by_one, tiles
from curation.report.measures import Histogram, apply_rules, is_numeric, measure, measure_names, values_and_states
from curation.report.summary import quarantine_counts, reason_counts, summarise, verdict_counts, with_verdicts
from curation.report.thumbnails import COLUMNS, WAVE_HEIGHT, Thumbnail
from curation.select import VERDICTS
from kit.web.numbers import number
from kit.web.page import environment, render, write_page
from unitalking_data.storage import Store

QUARANTINE_ROWS = 500
PLOT = (400, 120)
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
    ruling = apply_rules(report)
    ruled = {view.rule.score for view in ruling.rules}
    others = [
        measure(report.scores, name, *values_and_states(report.scores, name), marks=())
        for name in measure_names(report.scores)
        if name not in ruled and is_numeric(report.scores.schema.field(name).type)
    ]
    shown = tiles(report, choose(report.scores, clips), run)
    summary = summarise(report, ruling, others, [tile.key for tile in shown])
    page = render(
        _environment(),
        "template.html",
        styles=["style.css"],
        scripts=["script.js"],
        report=report,
        summary=summary,
        ruling=ruling,
        others=others,
        tiles=shown,
        filters=_filters(report, shown),
        quarantine=report.quarantine[:QUARANTINE_ROWS],
        quarantine_counts=quarantine_counts(report),
        funnel=_funnel(report),
        titles=measure_titles(report),
        busiest=max((stage.get("cpu_seconds") or 0 for stage in report.stages), default=0),
        sweeps=[[sweep.as_json(view.measure.histogram) for sweep in view.sweeps] for view in ruling.rules],
        facts={name: value for name, value in report.run.items() if name != "config"},
    )
    Store(out).write_bytes("summary.json", json.dumps(summary, indent=1).encode())
    write_page(out / "index.html", page)
    return out / "index.html"


def _environment() -> jinja2.Environment:
    pages = environment(Path(__file__).parent)
    pages.filters |= {
        "bars": bars,
        "peak": peak,
        "rate": lambda value: number(value if value is None else float(f"{value:.3g}")),
    }
    pages.globals |= {
        "demand": demand,
        "mark": _MARKS,
        "verdicts": VERDICTS,
        "plot": PLOT,
        "wave": (COLUMNS, WAVE_HEIGHT),
        "place": place,
        "ticks": ticks,
        "is_picture": lambda media: isinstance(media, Thumbnail),
    }
    return pages


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


def peak(dbfs: float) -> str:
    """ "peak −7 dBFS", or "silent"."""
    return f"peak {number(round(dbfs))} dBFS" if math.isfinite(dbfs) else "silent"
