"""Crashes, hangs and hoarders cost one step of one item, and are told apart."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from engine.config import GroupConfig
from engine.guard import Guard, SetupError
from engine.items import Source, from_table
from engine.specs import GroupSpec, StageSpec, WorkItem


@pytest.fixture
def score(toy_run, sources):
    def run(*scripts: str, **options):
        guard = Guard(toy_run(**options).groups[0])
        try:
            items = from_table(sources(*scripts), Source)
            return guard.score([WorkItem(item, ("length", "flaky")) for item in items])
        finally:
            guard.close()

    return run


def by_script(rows, *scripts):
    uris = {Source.of(f"file-{n:03}-{s}").key: s for n, s in enumerate(scripts)}
    return {uris[row.key]: row for row in rows}


@pytest.mark.parametrize(("script", "kind"), [("crash", "crash"), ("hang", "timeout"), ("bloat", "memory")])
def test_a_crash_costs_one_stage_of_one_item(score, script, kind):
    scripts = ("a", "b", script, "c")
    # a crash and the memory's limit must come before the time's, however busy the machine is
    rows = score(*scripts, time_limit_s=2 if script == "hang" else 60)
    flaky = by_script(rows["flaky"], *scripts)
    assert {s: row.status for s, row in flaky.items()} == {"a": "value", "b": "value", script: "failed", "c": "value"}
    assert flaky[script].error_kind == kind and "flaky" in flaky[script].error
    assert [row.status for row in rows["length"]] == ["value"] * 4, "stages that had answered keep their answers"
    assert all(row.attempts == 1 for row in rows["flaky"])


def test_a_crash_while_opening_fails_every_stage_of_that_item(score):
    scripts = ("a", "open-crash", "b")
    rows = score(*scripts)
    for stage in ("length", "flaky"):
        row = by_script(rows[stage], *scripts)["open-crash"]
        assert (row.status, row.error_kind) == ("failed", "crash") and "SIGABRT" in row.error
    assert len(rows["length"]) == len(rows["flaky"]) == 3


def test_bad_media_and_exceptions_are_answers(score):
    scripts = ("unopenable", "raise", "bad", "none", "fine")
    rows = by_script(score(*scripts)["length"], *scripts)
    assert (rows["unopenable"].status, rows["unopenable"].error_kind) == ("failed", "media")
    assert (rows["raise"].status, rows["raise"].error_kind) == ("failed", "error")
    assert rows["raise"].error == "RuntimeError: thrown by the stage"
    assert (rows["bad"].error_kind, rows["none"].reason) == ("media", "scripted")
    assert rows["fine"].values == {"letters": len("file-004-fine")}


def test_a_stage_that_cannot_be_set_up_blames_no_clip():
    spec = StageSpec("tests.engine.toys:Flaky", {"folder": "x", "unknown": 1})
    guard = Guard(GroupSpec(GroupConfig(name="broken", stages={}), (spec,)))
    with pytest.raises(SetupError, match=r"group broken: setting up: (?s:.*)unknown"):
        guard.score([WorkItem(Source.of("a"), ("flaky",))])


def test_the_guarded_process_dies_with_its_parent(tmp_path: Path):
    """SIGKILL of the parent in the middle of a hanging step leaves no process behind."""
    code = f"""
from engine.items import Source
from engine.config import GroupConfig
from engine.guard import Guard
from engine.specs import GroupSpec, StageSpec, WorkItem
spec = StageSpec("tests.engine.toys:Flaky", {{"folder": {str(tmp_path)!r}}})
guard = Guard(GroupSpec(GroupConfig(name="g", stages={{}}), (spec,)))
guard._start(); print(guard._process.pid, flush=True)
guard.score([WorkItem(Source.of("x", "hang"), ("flaky",))])
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    while not (tmp_path / "calls").exists():
        time.sleep(0.05)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    _, alive = psutil.wait_procs([psutil.Process(child)] if psutil.pid_exists(child) else [], timeout=10)
    assert not alive
