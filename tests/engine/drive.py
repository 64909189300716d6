"""A driver in a process of its own, for tests that kill it: ``python -m tests.engine.drive ROOT EXECUTOR ADDRESS``."""

from __future__ import annotations

import sys
from pathlib import Path

from engine.config import ExecutorConfig, GroupConfig, Pool
from engine.items import Source, to_table
from engine.jobs import execute
from engine.ledger import Ledger
from engine.rules import Gate, Rule
from engine.runner import RunSpec
from engine.specs import GroupSpec, StageSpec
from unitalking_data.storage import Store

TOYS = "tests.engine.toys"
ITEMS = to_table([Source.of(f"item-{n:03}" + "x" * (n % 4), "bad" if n % 7 == 0 else "") for n in range(40)], Source)


def run_spec(root: Path) -> RunSpec:
    """Forty items through three stages in two groups, a gate between them; slow enough to be killed in the middle."""
    marks = root.parent / "marks"
    marks.mkdir(parents=True, exist_ok=True)
    gate = Gate(before=("last",), rules=(Rule(score="length.letters", min=9, absent="pass"),))
    limits = {"batch_size": 3, "time_limit_s": 30.0, "pool": Pool(cpus=0.5)}
    flaky = {"folder": str(marks), "pause_s": 0.05}
    first = GroupConfig(name="first", stages={"length": {}, "flaky": flaky}, **limits)
    second = GroupConfig(name="second", stages={"last": {}}, **limits)
    return RunSpec(
        Ledger(Store(root)),
        "source",
        (
            GroupSpec(first, (StageSpec(f"{TOYS}:Length"), StageSpec(f"{TOYS}:Flaky", flaky)), (gate,)),
            GroupSpec(second, (StageSpec(f"{TOYS}:Last"),), (gate,)),
        ),
    )


if __name__ == "__main__":
    _, root, kind, address = sys.argv
    execute(run_spec(Path(root)), ITEMS, ExecutorConfig(kind=kind, address=address), "items", print)
