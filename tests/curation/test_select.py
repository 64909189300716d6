"""Selection is a pure function: the same scores and rules give the same verdicts, each by the book."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.select import VERDICTS, load_scores, select
from curation.thresholds import Threshold
from engine.items import Source, to_table
from engine.ledger import Ledger
from engine.specs import Row, StageSpec
from unitalking_data.storage import Store

LENGTH, LAST = StageSpec("tests.engine.toys:Length"), StageSpec("tests.engine.toys:Last")
RULES = (
    Threshold(reason="short", score="length.letters", min=3, why="test"),
    Threshold(reason="long", score="length.letters", max=8, why="test"),
    Threshold(reason="short", score="length.letters", min=2, why="test"),
    Threshold(reason="bad", score="last.ok", min=1, why="test"),
)


def value(key: str, **values) -> Row:
    return Row(key, "value", 1, values=values)


def failed(key: str, attempts: int, kind: str = "timeout") -> Row:
    return Row(key, "failed", attempts, error_kind=kind, error="scripted")


@pytest.fixture
def verdicts(tmp_path):
    def decide(length: dict[str, Row | None], last: dict[str, Row | None], rules=RULES) -> dict[str, tuple]:
        ledger = Ledger(Store(tmp_path))
        for spec, rows in ((LENGTH, length), (LAST, last)):
            ledger.append(spec, "part-0.parquet", [row for row in rows.values() if row])
        items = to_table([Source(key, key) for key in length], Source)
        table = select(load_scores(ledger, items, [LENGTH, LAST]), rules, 2)
        return {r["key"]: (r["verdict"], tuple(r["reasons"]), tuple(r["pending"])) for r in table.to_pylist()}

    return decide


def test_every_case(verdicts):
    cases = {
        "good": (value("good", letters=5), value("good", ok=True), ("kept", (), ())),
        "short": (value("short", letters=1), value("short", ok=False), ("dropped", ("short", "bad"), ())),
        "absent": (value("absent"), value("absent", ok=True), ("dropped", ("short", "long"), ())),
        "none": (Row("none", "not_applicable", 1), value("none", ok=True), ("dropped", ("short", "long"), ())),
        "again": (value("again", letters=5), failed("again", 1), ("undecided", (), ("last",))),
        "spent": (value("spent", letters=5), failed("spent", 2), ("quarantined", (), ("last",))),
        "media": (failed("media", 1, "media"), failed("media", 1, "media"), ("quarantined", (), ("length", "last"))),
        "open": (value("open", letters=5), None, ("undecided", (), ("last",))),
        "gated": (value("gated", letters=1), Row("gated", "skipped", 0), ("dropped", ("short",), ("last",))),
        "both": (value("both", letters=9), failed("both", 2), ("dropped", ("long",), ("last",))),
    }
    answers = verdicts({k: c[0] for k, c in cases.items()}, {k: c[1] for k, c in cases.items()})
    assert answers == {key: case[2] for key, case in cases.items()}


def test_absent_may_pass(verdicts):
    rules = (Threshold(reason="short", score="length.letters", min=3, absent="pass", why="test"),)
    assert verdicts({"a": value("a")}, {"a": None}, rules)["a"] == ("kept", (), ())


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.none() | st.integers(0, 12), st.none() | st.booleans()), min_size=1, max_size=12))
def test_every_clip_has_one_verdict_and_kept_means_all_rules_hold(tmp_path_factory, rows):
    ledger = Ledger(Store(tmp_path_factory.mktemp("scores")))
    keys = [f"k{n:02}" for n in range(len(rows))]
    ledger.append(LENGTH, "p.parquet", [value(k, letters=n) for k, (n, _) in zip(keys, rows, strict=True)])
    ledger.append(LAST, "p.parquet", [value(k, ok=ok) for k, (_, ok) in zip(keys, rows, strict=True)])
    scores = load_scores(ledger, to_table([Source(key, key) for key in keys], Source), [LENGTH, LAST])
    table = select(scores, RULES, 2)
    assert table["key"].to_pylist() == keys and set(table["verdict"].to_pylist()) <= set(VERDICTS)
    for (letters, ok), row in zip(rows, table.to_pylist(), strict=True):
        holds = {rule.reason: True for rule in RULES}
        for rule in RULES:
            holds[rule.reason] &= rule.passes({"letters": letters, "ok": ok}[rule.column])
        assert set(row["reasons"]) == {reason for reason, good in holds.items() if not good}
        assert (row["verdict"] == "kept") == all(holds.values())
    assert select(scores, RULES, 2) == table


def test_values_keep_their_descriptions(tmp_path):
    scores = load_scores(Ledger(Store(tmp_path)), to_table([Source("k", "u")], Source), [LENGTH])
    assert scores.schema.field("length.letters").metadata == {b"description": b"characters in the URI"}
    assert scores["length.status"].to_pylist() == [None]
    assert pa.types.is_int64(scores.schema.field("length.letters").type)
