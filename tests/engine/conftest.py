from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from engine.config import GroupConfig, Pool
from engine.items import Source, to_table
from engine.ledger import Ledger
from engine.rules import Gate
from engine.runner import RunSpec
from engine.specs import GroupSpec, StageSpec
from unitalking_data.storage import Store

TOYS = "tests.engine.toys"


@pytest.fixture
def sources() -> Callable[..., pa.Table]:
    """``sources("crash", "", …)``: one item a script, in a table."""
    return lambda *scripts: to_table([Source.of(f"file-{n:03}-{s}", s) for n, s in enumerate(scripts)], Source)


@pytest.fixture
def toy_run(tmp_path: Path) -> Callable[..., RunSpec]:
    """A run of the toy stages: ``length`` and ``flaky`` share a group, ``last`` has its own behind the gates."""

    def build(
        gates: tuple[Gate, ...] = (),
        batch_size: int = 4,
        pause_s: float = 0.0,
        actors: int = 1,
        time_limit_s: float = 10.0,
    ) -> RunSpec:
        marks = tmp_path / "marks"
        marks.mkdir(exist_ok=True)
        first = {"length": {}, "flaky": {"folder": str(marks), "pause_s": pause_s}}
        pool = Pool(min_actors=actors, max_actors=actors, cpus=0.5)
        limits = {"batch_size": batch_size, "time_limit_s": time_limit_s, "memory_limit_gb": 0.6, "pool": pool}
        return RunSpec(
            ledger=Ledger(Store(tmp_path / "run")),
            item_type="source",
            groups=(
                GroupSpec(
                    GroupConfig(name="first", stages=first, **limits),
                    (StageSpec(f"{TOYS}:Length"), StageSpec(f"{TOYS}:Flaky", first["flaky"])),
                    gates,
                    f"{TOYS}:opener",
                ),
                GroupSpec(
                    GroupConfig(name="second", stages={"last": {}}, **limits), (StageSpec(f"{TOYS}:Last"),), gates
                ),
            ),
        )

    return build
