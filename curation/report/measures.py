"""Summarise columns of scores: histograms, and how many clips another threshold would keep.

Everything is vectorised over the clips, and what comes out has a size that does not grow with them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.report.data import ReportInput, StageUse
from curation.thresholds import Threshold
from engine.ledger import STATUSES

_BINS = 36
_STOPS_A_BIN = 4
_VALUE, _NOT_APPLICABLE = STATUSES.index("value"), STATUSES.index("not_applicable")
_NOT_RUN = -1


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts between ``edges``; clips beyond the first and last edge are counted in the end bins.

    ``decimals`` is how many of them a value on this axis deserves; ``whole`` says that all values and
    thresholds are whole numbers, each with a bin around it.
    """

    edges: np.ndarray
    counts: np.ndarray
    below: int
    above: int
    decimals: int
    whole: bool

    def border(self, bound: str, threshold: float) -> float:
        """Where the values that pass begin or end on the axis: between two bars where all are whole numbers."""
        if not self.whole:
            return threshold
        return math.ceil(threshold) - 0.5 if bound == "min" else math.floor(threshold) + 0.5


@dataclass(frozen=True, slots=True)
class Measure:
    """One numeric score over all clips. The five counts add up to the number of clips."""

    score: str
    description: str
    measured: int
    absent: int
    failed: int
    skipped: int
    not_run: int
    quantiles: dict[str, float]
    histogram: Histogram | None


@dataclass(frozen=True, slots=True)
class Sweep:
    """What moving one bound of one rule would do, at each of ``stops``; the other bounds stay.

    Attributes:
        bound: "min" or "max".
        at: index in ``stops`` of the threshold that was used.
        alone: clips that this rule by itself lets pass.
        overall: clips that would be kept.
        unscored: clips that no measured rule stops but that a later stage has not scored (gated or failed).
    """

    bound: str
    at: int
    stops: np.ndarray
    alone: np.ndarray
    overall: np.ndarray
    unscored: np.ndarray

    def as_json(self, bins: Histogram) -> dict[str, Any]:
        return {
            "bound": self.bound,
            "axis": [float(bins.edges[0]), float(bins.edges[-1])],
            "whole": bins.whole,
            "at": self.at,
            "stops": [float(f"{stop:.9g}") for stop in self.stops],
            "alone": self.alone.tolist(),
            "overall": self.overall.tolist(),
            "unscored": self.unscored.tolist(),
        }


@dataclass(frozen=True, slots=True)
class RuleView:
    """A rule that was applied, the measure it reads and its effect."""

    rule: Threshold
    measure: Measure
    passed: int
    failed: int
    unknown: int
    sweeps: list[Sweep]


@dataclass(frozen=True, slots=True)
class RuleSummary:
    """All rules over all clips.

    Attributes:
        rules: those that were applied.
        unapplied: (rule, why) for those whose stage did not run.
        kept: clips that follow as kept from the applied rules.
        disagreeing: clips whose verdict is not the one that follows from the rules.
    """

    rules: list[RuleView] = field(default_factory=list)
    unapplied: list[tuple[Threshold, str]] = field(default_factory=list)
    kept: int = 0
    disagreeing: int = 0


def stage_of(score: str) -> str:
    return score.split(".", 1)[0]


def is_numeric(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def measure_names(scores: pa.Table) -> list[str]:
    """Columns that hold values of stages, of any type, in the table's order."""
    bookkeeping = ("status", "detail", "attempts", "error_kind", "seconds", "cpu_seconds", "open_seconds")
    stages = {stage_of(name) for name in scores.column_names if name.endswith(".status")}
    return [
        name
        for name in scores.column_names
        if "." in name and stage_of(name) in stages and name.split(".", 1)[1] not in bookkeeping
    ]


def description(scores: pa.Table, name: str) -> str:
    metadata = scores.schema.field(name).metadata or {}
    return metadata.get(b"description", b"").decode("utf-8", "replace")


def values_and_states(scores: pa.Table, score: str) -> tuple[np.ndarray, np.ndarray]:
    """(float64 values, NaN where there is none; int8 index into ``STATUSES``, −1 where the stage has not run)."""
    status = pc.index_in(scores[f"{stage_of(score)}.status"], pa.array(STATUSES))
    states = pc.fill_null(status, _NOT_RUN).cast(pa.int8()).to_numpy()
    column = scores[score]
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    values = pc.fill_null(column.cast(pa.float64()), math.nan).to_numpy()
    return np.where(states == _VALUE, values, math.nan), states


def measure(scores: pa.Table, score: str, values: np.ndarray, states: np.ndarray, marks: Sequence[float]) -> Measure:
    """Summary of one score; the histogram's axis reaches the thresholds in ``marks``."""
    finite = values[np.isfinite(values)]
    at = (0, 5, 25, 50, 75, 95, 100)
    quantiles = dict(zip((f"p{q}" for q in at), np.percentile(finite, at).tolist())) if len(finite) else {}
    counts = {code: int((states == code).sum()) for code in (_NOT_RUN, *range(len(STATUSES)))}
    measured = int((~np.isnan(values)).sum())
    return Measure(
        score=score,
        description=description(scores, score),
        measured=measured,
        absent=counts[_NOT_APPLICABLE] + counts[_VALUE] - measured,
        failed=counts[STATUSES.index("failed")],
        skipped=counts[STATUSES.index("skipped")],
        not_run=counts[_NOT_RUN],
        quantiles=quantiles,
        histogram=histogram(finite, marks) if len(finite) else None,
    )


def histogram(values: np.ndarray, marks: Sequence[float]) -> Histogram:
    """Bins on round numbers over the middle 99 % of finite ``values`` and all ``marks``."""
    low, high = np.percentile(values, (0.5, 99.5))
    low, high = min(low, *marks, high), max(high, *marks, low)
    whole = bool(high - low <= 2 * _BINS and (values == np.round(values)).all() and all(m == round(m) for m in marks))
    if whole:
        # One bar more below a threshold that is the least value, so that its line has two sides.
        step, first, last = 1.0, math.floor(low) - (1.5 if low in marks else 0.5), math.ceil(high) + 0.5
    else:
        # Wide enough that neighbouring edges differ as floating-point numbers.
        span = max(high - low, 1e-9 * max(abs(low), abs(high)), 1e-30) if high or low else 1.0
        step = _round_step(span / _BINS)
        first, last = math.floor(low / step) * step, math.ceil(high / step) * step
        last = last if last > first else first + step
    edges = first + step * np.arange(round((last - first) / step) + 1)
    inside = np.clip(values, edges[0], edges[-1])
    return Histogram(
        edges=edges,
        counts=np.histogram(inside, edges)[0],
        below=int((values < edges[0]).sum()),
        above=int((values > edges[-1]).sum()),
        decimals=0 if whole else max(0, 1 - math.floor(math.log10(step))),
        whole=whole,
    )


def _round_step(step: float) -> float:
    """The next of 1, 2, 2.5, 5 × 10^k above ``step``."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * lead for lead in (1, 2, 2.5, 5, 10) if power * lead >= step * (1 - 1e-9))


def apply_rules(report: ReportInput) -> RuleSummary:
    """Apply the rules to the table once more, to count what each of them does alone and with the others."""
    scores, stages = report.scores, {stage["name"]: stage for stage in report.stages}
    applied, unapplied = [], []
    for rule in report.rules:
        missing = _why_unapplied(scores, rule, stages.get(stage_of(rule.score)))
        (unapplied if missing else applied).append((rule, missing))
    applied = [rule for rule, _ in applied]

    clips = scores.num_rows
    fails, unknowns = np.zeros(clips, np.int32), np.zeros(clips, np.int32)
    for rule in applied:
        passed, failed = _outcome(rule, *values_and_states(scores, rule.score))
        fails += failed
        unknowns += ~(passed | failed)
    verdict = scores["verdict"]
    pending = pc.fill_null(pc.list_value_length(scores["pending"]), 0).to_numpy()
    quarantined = pc.equal(verdict, "quarantined").to_numpy()
    follows = (fails == 0) & (unknowns == 0) & (pending == 0) & ~quarantined
    kept = pc.equal(verdict, "kept").to_numpy()
    views = [_view(scores, rule, fails, unknowns, pending > 0, quarantined) for rule in applied]
    return RuleSummary(views, unapplied, int(follows.sum()), int((follows != kept).sum()))


def _why_unapplied(scores: pa.Table, rule: Threshold, stage: StageUse | None) -> str:
    if stage is not None and stage.get("not_run"):
        return f"stage {stage['name']} did not run"
    if rule.score not in scores.column_names or f"{stage_of(rule.score)}.status" not in scores.column_names:
        return f"there is no score {rule.score}"
    if not is_numeric(scores.schema.field(rule.score).type):
        return f"{rule.score} is not a number"
    return ""


def _outcome(rule: Threshold, values: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(passes, fails) as boolean masks; neither where the stage has no answer."""
    measured = ~np.isnan(values)
    absent = ~measured & ((states == _VALUE) | (states == _NOT_APPLICABLE))
    inside = np.ones(len(values), bool)
    if rule.min is not None:
        inside &= values >= rule.min
    if rule.max is not None:
        inside &= values <= rule.max
    dropped = absent if rule.absent == "drop" else np.zeros_like(absent)
    return (measured & inside) | (absent & ~dropped), (measured & ~inside) | dropped


def _view(
    scores: pa.Table,
    rule: Threshold,
    fails: np.ndarray,
    unknowns: np.ndarray,
    unfinished: np.ndarray,
    quarantined: np.ndarray,
) -> RuleView:
    values, states = values_and_states(scores, rule.score)
    passed, failed = _outcome(rule, values, states)
    marks = [bound for bound in (rule.min, rule.max) if bound is not None]
    view = measure(scores, rule.score, values, states, marks)
    others_pass = (fails - failed == 0) & ~quarantined
    others_known = (unknowns - ~(passed | failed) == 0) & ~unfinished
    free = {"alone": None, "overall": others_pass & others_known, "unscored": others_pass & ~others_known}
    sweeps = []
    if view.histogram is not None:
        absent_passes = passed & np.isnan(values)
        for bound in ("min", "max"):
            if getattr(rule, bound) is not None:
                sweeps.append(_sweep(rule, bound, values, view.histogram, free, absent_passes))
    return RuleView(
        rule, view, int(passed.sum()), int(failed.sum()), int(len(values) - passed.sum() - failed.sum()), sweeps
    )


def _sweep(
    rule: Threshold,
    bound: str,
    values: np.ndarray,
    bins: Histogram,
    masks: dict[str, np.ndarray | None],
    absent_passes: np.ndarray,
) -> Sweep:
    threshold = float(getattr(rule, bound))
    if bins.whole:
        stops = np.arange(bins.edges[0] + 0.5, bins.edges[-1])
    else:
        stops = np.linspace(bins.edges[0], bins.edges[-1], (len(bins.edges) - 1) * _STOPS_A_BIN + 1)
    at = int(np.abs(stops - threshold).argmin())
    stops[at] = threshold
    other = rule.max if bound == "min" else rule.min
    measured = ~np.isnan(values)
    if other is not None:
        measured &= (values <= other) if bound == "min" else (values >= other)
    # Stops at or under the value (min), or strictly under it (max): a stop keeps the values counted from its side.
    place = np.searchsorted(stops, values, side="right" if bound == "min" else "left")
    counts = {}
    for name, mask in masks.items():
        chosen = measured if mask is None else measured & mask
        bare = absent_passes if mask is None else absent_passes & mask
        hits = np.bincount(place[chosen], minlength=len(stops) + 1)
        kept = hits[::-1].cumsum()[::-1][1:] if bound == "min" else hits.cumsum()[:-1]
        counts[name] = kept + int(bare.sum())
    return Sweep(bound, at, stops, counts["alone"], counts["overall"], counts["unscored"])
