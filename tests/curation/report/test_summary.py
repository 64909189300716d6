from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curation.report import Account, ReportInput, build
from curation.report.summary import plain, reason_counts
from curation.report.thumbnails import Thumbnail
from tests.curation.report import sample


def no_media(function, refs):
    return [Thumbnail("data:,", 10, 100, 60, "", None) for _ in refs]


def summary_of(report: ReportInput, folder: Path) -> dict:
    build(report, folder, run=no_media)
    text = (folder / "summary.json").read_text()
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_the_accounts_add_up_for_sources_and_clips(tmp_path: Path) -> None:
    summary = summary_of(sample.report(), tmp_path)
    for account in summary["accounts"]:
        assert account["balanced"]
        parts = [account[name] for name in ("kept", "dropped", "undecided", "quarantined")]
        assert account["rows_in"] == sum(parts)
    assert summary["accounts"][1]["line"].startswith("60 clips in = ")
    assert sum(summary["clips"].values()) == 60
    assert "sources in = 30 kept + 14 dropped" in (tmp_path / "index.html").read_text()


@pytest.mark.parametrize(
    ("account", "fault"),
    [
        (Account("sources", 10, 5, 3, 0, 1), "1 sources are missing"),
        (Account("sources", 10, 5, 5, 0, 1), "1 sources stand in the account twice"),
        (Account("clips", 60, 60, 0, 0, 0), "the score table has"),
    ],
)
def test_an_account_that_does_not_add_up_is_said_in_red(account: Account, fault: str, tmp_path: Path) -> None:
    summary = summary_of(replace(sample.report(), accounts=[account]), tmp_path)
    assert not summary["accounts"][0]["balanced"] and any(fault in text for text in summary["accounts"][0]["faults"])
    page = (tmp_path / "index.html").read_text()
    assert fault in page and "does not add up" in page


def test_reasons_are_counted_first_any_and_only(tmp_path: Path) -> None:
    rows = [["a", "b"], ["b"], [], ["b", "c"], ["a"], None]
    counts = reason_counts(pa.table({"reasons": pa.chunked_array([pa.array(rows, pa.list_(pa.string()))])}))
    assert counts == [
        {"reason": "b", "first": 2, "any": 3, "only": 1},
        {"reason": "a", "first": 2, "any": 2, "only": 1},
        {"reason": "c", "first": 0, "any": 1, "only": 0},
    ]


def test_fallbacks_unapplied_rules_and_provenance_are_there(tmp_path: Path) -> None:
    summary = summary_of(sample.report(), tmp_path)
    assert summary["fallbacks"] == [{"stage": "lip_sync", "fallback_for": "SyncNet"}]
    assert [rule["reason"] for rule in summary["rules_not_applied"]] == ["ugly"]
    assert summary["run"]["code_revision"].startswith("7898cd1")
    assert summary["stages"][0]["weights"][0]["sha256"]
    assert len(summary["gallery"]) == 60
    assert summary["quarantine"]["rows"] == 2
    assert summary["hours"]["all"] == pytest.approx(60 * 4 / 3600)
    assert {rule["score"] for rule in summary["rules"]} | {m["score"] for m in summary["measures"]} >= {
        *("static.motion", "static.frozen_ratio", "lip_sync.offset")
    }


def test_a_verdict_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    table = sample.scores(4)
    wrong = table.set_column(table.column_names.index("verdict"), "verdict", pa.array(["kept", "fine", "kept", "kept"]))
    with pytest.raises(ValueError, match="fine"):
        build(sample.report(wrong), tmp_path, run=no_media)
    assert not list(tmp_path.iterdir())


def test_a_clip_without_a_verdict_is_undecided(tmp_path: Path) -> None:
    table = sample.scores(4)
    place = table.column_names.index("verdict")
    unseen = table.set_column(place, "verdict", pa.array([None] * 4, pa.string()))
    report = replace(sample.report(table), scores=unseen, accounts=[Account("clips", 4, 0, 0, 4, 0)])
    summary = summary_of(report, tmp_path)
    assert summary["clips"]["undecided"] == 4 and summary["accounts"][0]["balanced"]


def test_an_empty_run_has_a_report(tmp_path: Path) -> None:
    table = sample.scores(4).slice(0, 0)
    report = replace(
        sample.report(table), funnel=[], quarantine=[], stages=[], accounts=[Account("clips", 0, 0, 0, 0, 0)], run={}
    )
    summary = summary_of(report, tmp_path)
    assert summary["clips"] == {"kept": 0, "dropped": 0, "undecided": 0, "quarantined": 0}
    assert "Nothing was quarantined" in (tmp_path / "index.html").read_text()


def test_the_files_appear_whole_and_leave_nothing_behind(tmp_path: Path) -> None:
    build(sample.report(), tmp_path, run=no_media)

    def failing(function, refs):
        raise RuntimeError("stopped")

    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(before) == {"index.html", "summary.json"}
    with pytest.raises(RuntimeError):
        build(sample.report(sample.scores(9)), tmp_path, run=failing)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_page_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    sizes = []
    for clips in (400, 40_000):
        table = sample.scores(400)
        table = pa.concat_tables([table] * (clips // 400))
        rows = sample.report().quarantine * (clips // 10)
        build(replace(sample.report(table), quarantine=rows), tmp_path, clips=40, run=no_media)
        sizes.append([(tmp_path / name).stat().st_size for name in ("index.html", "summary.json")])
    assert sizes[1][0] < 1.15 * sizes[0][0] + 500 * 700
    assert sizes[1][1] < 1.15 * sizes[0][1]


def test_json_holds_no_nan_and_no_foreign_type() -> None:
    given = {"a": math.nan, "b": np.float32(0.5), "c": np.arange(2), "d": (1, None, True), "e": Path("x"), 3: math.inf}
    assert plain(given) == {"a": None, "b": 0.5, "c": [0, 1], "d": [1, None, True], "e": "x", "3": None}
