from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.report.measures import apply_rules, histogram, measure_names
from curation.thresholds import Threshold
from tests.curation.report import sample


def kept_by_hand(table: pa.Table, rules: list[Threshold]) -> int:
    """Clips kept, row by row; ``rules`` hold only scores that the table has."""

    def passes(row: dict, rule: Threshold) -> bool:
        status, value = row[f"{rule.score.split('.')[0]}.status"], row[rule.score]
        if status not in ("value", "not_applicable"):
            return False
        if value is None:
            return rule.absent == "pass"
        return (rule.min is None or value >= rule.min) and (rule.max is None or value <= rule.max)

    rows = table.to_pylist()
    return sum(
        row["verdict"] != "quarantined" and not row["pending"] and all(passes(row, rule) for rule in rules)
        for row in rows
    )


def test_every_stop_of_every_slider_counts_what_that_threshold_keeps() -> None:
    report = sample.report()
    applied = [rule for rule in report.rules if rule.score in report.scores.column_names]
    ruling = apply_rules(report)
    assert ruling.kept == kept_by_hand(report.scores, applied) and ruling.disagreeing == 0
    assert [view.rule for view in ruling.rules] == applied
    for view in ruling.rules:
        for sweep in view.sweeps:
            assert sweep.stops[sweep.at] == getattr(view.rule, sweep.bound)
            assert (np.diff(sweep.stops) > 0).all()
            for stop in range(0, len(sweep.stops), 7):
                moved = view.rule.model_copy(update={sweep.bound: float(sweep.stops[stop])})
                others = [moved if rule is view.rule else rule for rule in applied]
                assert sweep.overall[stop] == kept_by_hand(report.scores, others), (view.rule, stop)
            assert sweep.alone[sweep.at] == view.passed
            assert sweep.overall[sweep.at] == ruling.kept


def test_loosening_a_rule_names_the_clips_that_a_gate_left_unscored() -> None:
    table = sample.scores()
    view = next(view for view in apply_rules(sample.report(table)).rules if view.rule.reason == "static")
    (sweep,) = view.sweeps
    rows = table.to_pylist()
    loosest = [row for row in rows if row["static.motion"] is not None and row["verdict"] != "quarantined"]
    gated = [row for row in loosest if row["lip_sync.status"] == "skipped"]
    assert gated and sweep.unscored[0] >= sum(set(row["reasons"]) <= {"static", "gated"} for row in gated)
    assert (np.diff(sweep.unscored) <= 0).all()


def test_rules_whose_stage_did_not_run_are_named_and_drop_nothing() -> None:
    report = sample.report()
    (rule, because), *more = apply_rules(report).unapplied
    assert not more and rule.reason == "ugly" and because == "stage aesthetics did not run"
    missing = replace(report, rules=[sample.rule("x", "static.nothing", min=1), sample.rule("y", "no.stage", min=1)])
    assert [because for _, because in apply_rules(missing).unapplied] == [
        "there is no score static.nothing",
        "there is no score no.stage",
    ]


def test_a_verdict_that_does_not_follow_from_the_rules_is_counted() -> None:
    table = sample.scores()
    verdicts = table["verdict"].to_pylist()
    verdicts[verdicts.index("dropped")] = "kept"
    place = table.column_names.index("verdict")
    changed = table.set_column(place, "verdict", pa.array(verdicts))
    assert apply_rules(sample.report(changed)).disagreeing == 1


def test_populations_add_up() -> None:
    table = sample.scores()
    for view in apply_rules(sample.report(table)).rules:
        measure = view.measure
        parts = (measure.measured, measure.absent, measure.failed, measure.skipped, measure.not_run)
        assert sum(parts) == table.num_rows
        assert view.passed + view.failed + view.unknown == table.num_rows


def test_bookkeeping_columns_are_no_measures() -> None:
    names = measure_names(sample.scores())
    assert "static.motion" in names and "sentences.intervals" in names
    assert not any(name.endswith((".status", ".detail", ".seconds")) for name in names)


@given(
    st.lists(st.floats(-1e12, 1e12, allow_nan=False), min_size=1, max_size=80),
    st.lists(st.floats(-1e9, 1e9), max_size=2),
)
def test_histograms_lose_no_value_and_reach_every_threshold(values: list[float], marks: list[float]) -> None:
    bins = histogram(np.array(values), marks)
    assert bins.counts.sum() == len(values)
    assert len(bins.edges) == len(bins.counts) + 1 <= 110
    assert (np.diff(bins.edges) > 0).all()
    slack = bins.edges[1] - bins.edges[0]
    assert all(bins.edges[0] - slack <= mark <= bins.edges[-1] + slack for mark in marks)


def test_whole_numbers_get_a_bar_each_and_the_threshold_stands_between_two() -> None:
    bins = histogram(np.array([0, 1, 1, 2, 3], float), [1, 2])
    assert bins.counts.tolist() == [1, 2, 1, 1]
    assert (bins.border("min", 1), bins.border("max", 2)) == (0.5, 2.5)


def test_shares_that_happen_to_be_all_or_nothing_keep_the_threshold_between_them() -> None:
    bins = histogram(np.array([0.0, 0.0, 1.0]), [0.2])
    assert not bins.whole and bins.border("max", 0.2) == 0.2
    assert histogram(np.array([1.0, 1.0]), [1]).counts.tolist() == [0, 2]


def test_a_boolean_score_can_be_ruled_on() -> None:
    table = sample.scores(12)
    table = table.append_column("static.still", pa.array([i % 3 == 0 for i in range(12)]))
    rule = sample.rule("still", "static.still", max=0)
    (view,) = apply_rules(replace(sample.report(table), rules=[rule])).rules
    assert view.failed == pytest.approx(sum(i % 3 == 0 for i in range(12) if i != 10))
