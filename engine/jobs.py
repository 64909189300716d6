"""Run a job to its end: passes until nothing is outstanding, progress, compaction, and the quarantine table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from engine.config import ExecutorConfig
from engine.executors import run_local, run_ray
from engine.ledger import open_database
from engine.runner import RunSpec
from engine.work import StageProgress, failed_for_good, outstanding
from kit.progress import Progress

QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("source_uri", pa.string(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("error_kind", pa.string(), nullable=False),
        pa.field("error", pa.string(), nullable=False),
        pa.field("attempts", pa.int32(), nullable=False),
    ]
)


@dataclass(frozen=True)
class RunResult:
    """What is in the ledger after a run."""

    items: int
    progress: tuple[StageProgress, ...]
    quarantine: pa.Table


def execute(
    run: RunSpec, items: pa.Table, config: ExecutorConfig, label: str, report: Callable[[str], None]
) -> RunResult:
    """Score everything that is outstanding for ``items``, failed ones again until their budget is spent.

    Safe to kill at any moment and to call again: what is done is read from the ledger, not remembered.
    """
    ledger = run.ledger
    # Every pass gives each outstanding item one attempt, so the budget bounds the passes; one more sees the end.
    for _ in range(config.retry_budget + 1):
        work = outstanding(ledger, items, run.groups, config.retry_budget)
        if not len(work.table):
            break
        report(f"{label}: {len(work.table)} of {len(items)} have something to do")
        progress = Progress(label, len(work.table))
        for count in run_ray(run, work.table, config) if config.kind == "ray" else run_local(run, work.table):
            progress.add(count)
        progress.finish()
    for group in run.groups:
        for spec in group.stages:
            ledger.compact(spec)
    work = outstanding(ledger, items, run.groups, config.retry_budget)
    return RunResult(len(items), work.progress, quarantined(run, items, config.retry_budget))


def quarantined(run: RunSpec, items: pa.Table, retry_budget: int) -> pa.Table:
    """Every failure that will not be tried again, with its message; written to ``quarantine/<item type>.parquet``."""
    uri = "source_uri" if "source_uri" in items.column_names else "uri"
    pieces = []
    with open_database() as connection:
        connection.register("items", items)
        for group in run.groups:
            for spec in group.stages:
                run.ledger.view(connection, spec, "scores")
                query = (
                    f"SELECT s.key, items.{uri} AS source_uri, '{spec.name}' AS stage, "
                    "s.error_kind, s.error, s.attempts FROM scores s JOIN items USING (key) "
                    f"WHERE {failed_for_good('s.status', 's.error_kind', 's.attempts', retry_budget)} ORDER BY s.key"
                )
                pieces.append(connection.sql(query).to_arrow_table().cast(QUARANTINE_SCHEMA))
    table = pa.concat_tables(pieces)
    run.ledger.store.write_table(f"quarantine/{run.item_type}.parquet", table)
    return table
