"""A rule says the same in Python (gates, while clips stream) and in SQL (plans and selection over tables)."""

from __future__ import annotations

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from engine.rules import Rule, closed_by

BOUND = st.none() | st.floats(-100, 100)


@settings(deadline=None)
@given(
    value=st.none() | st.floats(-200, 200) | st.booleans(),
    low=BOUND,
    high=BOUND,
    absent=st.sampled_from(["pass", "drop"]),
)
def test_python_and_sql_agree(value, low, high, absent):
    if low is None and high is None:
        low = 0.0
    rule = Rule(score="s.x", min=low, max=high, absent=absent)
    literal = "NULL" if value is None else repr(value)
    assert duckdb.sql(f"SELECT {rule.sql(literal)}").fetchall()[0][0] is not rule.passes(value)


@pytest.mark.parametrize(
    "bad", [{"score": "nodot", "min": 1}, {"score": "a.b"}, {"score": "a.b", "mx": 1}, {"score": ".b", "min": 1}]
)
def test_bad_rules_are_refused(bad):
    with pytest.raises(ValidationError):
        Rule(**bad)


@pytest.mark.parametrize(
    ("known", "shut"),
    [
        ({}, False),
        ({"s": {"status": "value", "values": {"x": 2.0}}}, False),
        ({"s": {"status": "value", "values": {"x": 0.0}}}, True),
        ({"s": {"status": "value", "values": {"x": None}}}, True),
        ({"s": {"status": "not_applicable"}}, True),
        ({"s": {"status": "failed"}}, False),
        ({"s": {"status": "skipped"}}, False),
    ],
)
def test_what_shuts_a_gate(known, shut):
    rules = (Rule(score="s.x", min=1.0),)
    assert closed_by(rules, known) == (rules[0] if shut else None)
