"""Whole runs of the toy stages: accounting, retries, gates, resuming, and the two executors' agreement."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from engine.config import ExecutorConfig
from engine.executors import run_local, run_ray
from engine.guard import SetupError
from engine.ledger import Ledger
from engine.rules import Gate, Rule
from engine.specs import StageSpec
from engine.work import outstanding
from unitalking_data.storage import Store

SCRIPTS = ("a", "crash", "bb", "once", "none", "bad", "unopenable", "ccc")
GATE = Gate(before=("last",), rules=(Rule(score="length.letters", min=11, absent="drop"),))
TIMINGS = ["seconds", "cpu_seconds", "open_seconds", "peak_memory", "bytes_read"]


def drain(run, items, budget=2, execute=run_local):
    """Run until nothing is left, as a job does; gives the number of passes."""
    for passes in range(10):
        work = outstanding(run.ledger, items, run.groups, budget)
        if not len(work.table):
            return passes
        assert sum(execute(run, work.table)) == len(work.table)
    raise AssertionError("the run does not end")


def tables(run) -> dict[str, pa.Table]:
    specs = [spec for group in run.groups for spec in group.stages]
    return {spec.name: run.ledger.read(spec).drop_columns(TIMINGS) for spec in specs}


def test_every_item_ends_with_one_row_a_stage(toy_run, sources):
    run, items = toy_run((GATE,)), sources(*SCRIPTS)
    drain(run, items)
    for name, table in tables(run).items():
        assert sorted(table["key"].to_pylist()) == sorted(items["key"].to_pylist()), name
    rows = {row["key"]: row for row in tables(run)["flaky"].to_pylist()}
    by_script = {item["licence"]: rows[item["key"]] for item in items.to_pylist()}
    assert by_script["crash"]["status"] == "failed" and by_script["crash"]["attempts"] == 2, "the budget is spent"
    assert by_script["once"]["status"] == "value", "repeated alone after the batch had crashed"
    assert by_script["unopenable"]["attempts"] == 1, "bad media is final at once"


def test_a_failure_is_tried_again_within_the_budget(toy_run, sources):
    run, items = toy_run(batch_size=1), sources("once")
    drain(run, items)
    row = tables(run)["flaky"].to_pylist()[0]
    assert (row["status"], row["attempts"]) == ("value", 2)
    assert drain(run, items) == 0


def test_a_finished_run_does_nothing_again(toy_run, sources, tmp_path: Path):
    run, items = toy_run(), sources("a", "b", "c")
    drain(run, items)
    calls = (tmp_path / "marks" / "calls").read_text()
    assert drain(run, items) == 0
    assert (tmp_path / "marks" / "calls").read_text() == calls


def test_loosening_a_gate_schedules_exactly_what_it_had_shut_out(toy_run, sources):
    items = sources("a", "bb", "ccc", "dddd")  # URIs of 10, 11, 12 and 13 letters
    tight, loose = ((Gate(before=("last",), rules=(Rule(score="length.letters", min=m),)),) for m in (12, 11))
    run = toy_run(tight)
    drain(run, items)
    assert tables(run)["last"]["status"].to_pylist().count("skipped") == 2
    work = outstanding(run.ledger, items, toy_run(loose).groups, 2)
    assert work.table["licence"].to_pylist() == ["bb"] and work.table["todo"].to_pylist() == [["last"]]
    drain(toy_run(loose), items)
    assert tables(run)["last"]["status"].to_pylist().count("skipped") == 1
    assert not len(outstanding(run.ledger, items, run.groups, 2).table), "tightening redoes nothing"


def test_gates_act_within_a_group_and_across_groups(toy_run, sources):
    gate = Gate(before=("flaky", "last"), rules=(Rule(score="length.letters", max=10),))
    run, items = toy_run((gate,)), sources("a", "crash")
    drain(run, items)
    crash = {r["key"]: r for r in tables(run)["flaky"].to_pylist()}[items["key"][1].as_py()]
    assert crash["status"] == "skipped" and crash["reason"] == "gate on length.letters"
    assert tables(run)["last"]["status"].to_pylist().count("skipped") == 1


def test_compaction_keeps_one_row_an_item(toy_run, sources):
    run, items = toy_run(batch_size=2), sources(*SCRIPTS)
    drain(run, items)
    ledger, before = run.ledger, tables(run)
    for group in run.groups:
        for spec in group.stages:
            ledger.compact(spec)
            assert len(ledger.store.files(ledger.folder(spec))) == 1
            assert ledger.store.read_table(ledger.store.files(ledger.folder(spec))).num_rows == len(items)
    assert tables(run) == before
    assert not len(outstanding(ledger, items, run.groups, 2).table)


@pytest.fixture(scope="module")
def ray_local():
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_ray_and_local_give_the_same_tables(toy_run, sources, tmp_path, ray_local):
    # "once" apart: how often it is tried depends on which items share its batch
    items = sources(*(script for script in SCRIPTS if script != "once"))
    local = toy_run((GATE,))
    drain(local, items)
    for mark in (tmp_path / "marks").iterdir():
        mark.unlink()
    on_ray = replace(toy_run((GATE,), batch_size=3, actors=2), ledger=Ledger(Store(tmp_path / "ray")))
    drain(on_ray, items, execute=lambda run, table: run_ray(run, table, ExecutorConfig(address="local")))
    for name, table in tables(local).items():
        assert tables(on_ray)[name].to_pylist() == table.to_pylist(), name


@pytest.mark.parametrize("execute", ["local", "ray"])
def test_a_group_that_cannot_be_set_up_stops_the_run_by_name(toy_run, sources, tmp_path, ray_local, execute):
    first = toy_run().groups[0]
    run = replace(toy_run(), groups=(replace(first, stages=(StageSpec("tests.engine.toys:NoDevice"),)),))
    work = outstanding(run.ledger, sources("a"), run.groups, 2).table
    config = ExecutorConfig(kind=execute, address="local")
    batches = run_local(run, work) if execute == "local" else run_ray(run, work, config)
    with pytest.raises(SetupError, match=r"group first: setting up: RuntimeError: no such device"):
        list(batches)
