"""``summary.json``: the report's numbers for machines, and what the page's head and tables read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.report.data import Account, ReportInput
from curation.report.measures import Measure, RuleSummary, RuleView
from curation.select import VERDICTS

FORMAT = 1


def with_verdicts(scores: pa.Table) -> pa.Table:
    """The table with a verdict for every clip: one that came after the last selection is undecided.

    Raises:
        ValueError: the column holds a verdict that nobody knows.
    """
    place = scores.column_names.index("verdict")
    scores = scores.set_column(place, "verdict", pc.fill_null(scores["verdict"], "undecided"))
    strange = sorted(_count(scores["verdict"]).keys() - set(VERDICTS))
    if strange:
        raise ValueError(f"column verdict holds {', '.join(strange)}; it may hold {', '.join(VERDICTS)}")
    return scores


def verdict_counts(scores: pa.Table) -> dict[str, int]:
    found = _count(scores["verdict"])
    return {verdict: found.get(verdict, 0) for verdict in VERDICTS}


def hours(scores: pa.Table, verdict: str | None = None) -> float:
    """Length of all clips, or of those with one verdict, in hours."""
    length = pc.subtract(scores["end_s"], scores["start_s"])
    if verdict is not None:
        length = pc.filter(length, pc.equal(scores["verdict"], verdict))
    return (pc.sum(length).as_py() or 0.0) / 3600


def reason_counts(scores: pa.Table) -> list[dict[str, Any]]:
    """Per reason: clips that have it first, anywhere, and as their only one. Most frequent first reason first."""
    reasons = scores["reasons"]
    length = pc.fill_null(pc.list_value_length(reasons), 0)
    some = reasons.filter(pc.greater(length, 0))
    one = reasons.filter(pc.equal(length, 1))
    anywhere, first, only = (
        _count(column) for column in (pc.list_flatten(reasons), pc.list_element(some, 0), pc.list_element(one, 0))
    )
    rows = [
        {"reason": name, "first": first.get(name, 0), "any": count, "only": only.get(name, 0)}
        for name, count in anywhere.items()
    ]
    return sorted(rows, key=lambda row: (-row["first"], -row["any"], row["reason"]))


def _count(column: pa.ChunkedArray) -> dict[str, int]:
    return {row["values"]: row["counts"] for row in pc.value_counts(column).to_pylist()}


def checked_accounts(report: ReportInput) -> list[dict[str, Any]]:
    """The accounting lines, each with whether it adds up; the clips' also against the verdict column."""
    counts = verdict_counts(report.scores)
    return [_checked(account, counts if account.what == "clips" else None) for account in report.accounts]


def _checked(account: Account, table: Mapping[str, int] | None) -> dict[str, Any]:
    faults = []
    if account.difference > 0:
        faults.append(f"{account.difference:,} {account.what} are missing from the account")
    elif account.difference < 0:
        faults.append(f"{-account.difference:,} {account.what} stand in the account twice or came from nowhere")
    for verdict, count in (table or {}).items():
        if count != getattr(account, verdict):
            faults.append(f"the score table has {count:,} {verdict}, the account {getattr(account, verdict):,}")
    return {**asdict(account), "line": str(account), "balanced": not faults, "faults": faults}


def quarantine_counts(report: ReportInput) -> list[dict[str, Any]]:
    counts = Counter((row["stage"], row["error_kind"]) for row in report.quarantine)
    return [{"stage": stage, "error_kind": kind, "rows": rows} for (stage, kind), rows in counts.most_common()]


def fallbacks(report: ReportInput) -> list[dict[str, Any]]:
    return [
        {"stage": stage["name"], "fallback_for": stage["fallback_for"]}
        for stage in report.stages
        if stage.get("fallback_for") and not stage.get("not_run")
    ]


def summarise(report: ReportInput, ruling: RuleSummary, others: list[Measure], shown: list[str]) -> dict[str, Any]:
    """The content of ``summary.json``; ``shown`` are the keys of the clips in the gallery."""
    return plain(
        {
            "format": FORMAT,
            "accounts": checked_accounts(report),
            "clips": verdict_counts(report.scores),
            "hours": {"all": hours(report.scores), "kept": hours(report.scores, "kept")},
            "funnel": [asdict(step) for step in report.funnel],
            "reasons": reason_counts(report.scores),
            "rules": [_rule(view) for view in ruling.rules],
            "rules_not_applied": [
                {"reason": rule.reason, "score": rule.score, "because": because} for rule, because in ruling.unapplied
            ],
            "verdicts_that_do_not_follow_from_the_rules": ruling.disagreeing,
            "measures": [_measure(measure) for measure in others],
            "fallbacks": fallbacks(report),
            "quarantine": {"rows": len(report.quarantine), "by_stage_and_kind": quarantine_counts(report)},
            "stages": list(report.stages),
            "run": dict(report.run),
            "gallery": shown,
        }
    )


def _rule(view: RuleView) -> dict[str, Any]:
    rule = view.rule
    bounds = {name: getattr(rule, name) for name in ("reason", "score", "min", "max", "absent", "why")}
    return {**bounds, "passed": view.passed, "failed": view.failed, "unknown": view.unknown, **_measure(view.measure)}


def _measure(measure: Measure) -> dict[str, Any]:
    row = {name: getattr(measure, name) for name in Measure.__dataclass_fields__ if name != "histogram"}
    bins = measure.histogram
    row["histogram"] = bins and {"edges": bins.edges.round(9), "counts": bins.counts}
    return row


def plain(value: Any) -> Any:
    """What JSON can hold: NaN and infinities become null, numpy's types Python's, everything unknown text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | list | tuple | set | frozenset):
        return [plain(item) for item in (value.tolist() if isinstance(value, np.ndarray) else value)]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
