"""The curation job: list, probe, cut, score, select, report; each step reads what the one before left on disk."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from curation.config import Curation
from curation.ingest.cut import OUTCOME_SCHEMA, cut
from curation.ingest.listing import list_sources
from curation.report.data import Account
from curation.select import VERDICT_SCHEMA, VERDICTS, load_ruled, select
from engine.jobs import QUARANTINE_SCHEMA, RunResult, execute
from engine.ledger import open_database
from engine.work import StageProgress, outstanding
from kit.errors import Fault
from kit.provenance import code_revision, machine
from unitalking_data.storage import Store

_FILE_ROWS = 500_000


class AccountingError(Fault):
    """Rows were lost or counted twice: a defect of this program, never of the data."""


def ingest(curation: Curation, report: Callable[[str], None]) -> RunResult:
    """List the sources, probe each one, cut them into clips; writes ``sources``, ``clips`` and ``outcomes``."""
    sources = list_sources(curation.config.listing)
    _write(curation.store, "sources", sources)
    finished = execute(curation.sources, sources, curation.config.executor, "sources", report)
    recut(curation)
    return finished


def recut(curation: Curation) -> None:
    """Cut the probed sources again; pure, so a changed clip length probes nothing again."""
    sources = read_rows(curation.store, "sources")
    probed = curation.ledger.read(curation.source_spec)
    probed = probed.drop_columns(
        [name for name in probed.column_names if name in sources.column_names and name != "key"]
    )
    with open_database() as connection:
        connection.register("sources", sources)
        connection.register("probed", probed)
        joined = connection.sql("SELECT * FROM sources LEFT JOIN probed USING (key)").to_arrow_table()
    result = cut(joined, curation.config.cut, curation.source_spec.fingerprint)
    _write(curation.store, "clips", result.clips)
    curation.store.write_table("outcomes.parquet", result.outcomes)


def score(curation: Curation, report: Callable[[str], None]) -> RunResult:
    clips = read_rows(curation.store, "clips")
    return execute(curation.clips, clips, curation.config.executor, "clips", report)


def decide(curation: Curation) -> pa.Table:
    """Select from the scores; writes ``verdicts.parquet``."""
    clips = read_rows(curation.store, "clips", ["key"])
    scores = load_ruled(curation.ledger, clips, curation.specs, curation.rules)
    verdicts = select(scores, curation.rules, curation.config.executor.retry_budget)
    curation.store.write_table("verdicts.parquet", verdicts)
    return verdicts


def accounts(curation: Curation) -> tuple[Account, Account]:
    """The books of the last run, from what is on disk.

    A source counts as kept when it gave clips, as dropped when it was too short or a duplicate.
    """
    store = curation.store
    outcomes = read_file(store, "outcomes.parquet", OUTCOME_SCHEMA)
    given_up = set(read_file(store, "quarantine/source.parquet", QUARANTINE_SCHEMA)["key"].to_pylist())
    names = dict.fromkeys(("clips", "too_short", "duplicate", "failed", "quarantined"), 0)
    for row in outcomes.select(["key", "outcome"]).to_pylist():
        names["quarantined" if row["outcome"] == "failed" and row["key"] in given_up else row["outcome"]] += 1
    sources = Account(
        "sources",
        len(read_rows(store, "sources", columns=["key"])),
        names["clips"],
        names["too_short"] + names["duplicate"],
        names["failed"],
        names["quarantined"],
    )
    verdicts = read_file(store, "verdicts.parquet", VERDICT_SCHEMA)
    counts = {row["values"]: row["counts"] for row in pc.value_counts(verdicts["verdict"]).to_pylist()}
    clips = Account(
        "clips", len(read_rows(store, "clips", columns=["key"])), *(counts.get(name, 0) for name in VERDICTS)
    )
    return sources, clips


def run(curation: Curation, report: Callable[[str], None]) -> tuple[Account, Account]:
    """The whole job up to the verdicts. What an earlier run finished is not done again.

    Raises:
        AccountingError: the books do not balance.
    """
    started, clock = datetime.now(UTC), time.monotonic()
    ingest(curation, report)
    score(curation, report)
    decide(curation)
    books = accounts(curation)
    record = {
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - clock, 1),
        "config": yaml.safe_dump(curation.config.model_dump(mode="json"), sort_keys=False),
        "code_revision": code_revision(),
        "executor": curation.config.executor.kind,
        "machine": machine(),
    }
    curation.store.write_json(f"runs/{started:%Y%m%dT%H%M%S%f}.json", record)
    for account in books:
        if account.difference:
            raise AccountingError(f"the books do not balance, please report this: {account}")
    return books


def progress(curation: Curation) -> dict[str, tuple[StageProgress, ...]]:
    """What each stage has done and has to do, without doing any of it."""
    budget = curation.config.executor.retry_budget
    answer = {}
    for what, spec in (("sources", curation.sources), ("clips", curation.clips)):
        rows = read_rows(curation.store, what)
        answer[what] = outstanding(curation.ledger, rows, spec.groups, budget).progress
    return answer


def last_run(store: Store) -> dict[str, Any]:
    files = store.files("runs", ".json")
    return store.read_json(files[-1]) if files else {}


def _write(store: Store, folder: str, table: pa.Table) -> None:
    """Replace a folder's table: new files first, then the old ones go, so a reader never finds nothing."""
    old = store.files(folder)
    stamp = f"{time.time_ns():x}"
    new = []
    for number, start in enumerate(range(0, max(len(table), 1), _FILE_ROWS)):
        new.append(f"{folder}/part-{stamp}-{number:06}.parquet")
        store.write_table(new[-1], table.slice(start, _FILE_ROWS))
    store.delete([name for name in old if name not in new])


def read_rows(store: Store, folder: str, columns: list[str] | None = None) -> pa.Table:
    files = store.files(folder)
    if not files:
        raise FileNotFoundError(f"no {folder} under {store.root}: run ingest first (python -m curation run)")
    return store.read_table(files, columns)


def read_file(store: Store, name: str, schema: pa.Schema) -> pa.Table:
    return store.read_table([name]) if store.exists(name) else schema.empty_table()
