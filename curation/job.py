"""The curation job: list, probe, cut, score, select, report; each step reads what the one before left on disk."""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from corpus.storage import Store
from curation.config import Curation
from curation.ingest.cut import OUTCOME_SCHEMA, cut
from curation.ingest.listing import list_sources
from curation.report.data import Account
from curation.select import VERDICT_SCHEMA, VERDICTS, load_ruled, select
from engine.jobs import QUARANTINE_SCHEMA, Finished, execute
from engine.ledger import Ledger, open_database
from engine.plan import StageProgress, outstanding

_FILE_ROWS = 500_000


class AccountingError(Exception):
    """Rows were lost or counted twice: a defect of this program, never of the data."""


def ingest(curation: Curation, report: Callable[[str], None]) -> Finished:
    """List the sources, probe each one, cut them into clips; writes ``sources``, ``clips`` and ``outcomes``."""
    store = Store(curation.config.root)
    sources = list_sources(curation.config.listing)
    _write(store, "sources", sources)
    finished = execute(curation.sources, sources, curation.config.executor, "sources", report)
    recut(curation)
    return finished


def recut(curation: Curation) -> None:
    """Cut the probed sources again; pure, so a changed clip length probes nothing again."""
    store = Store(curation.config.root)
    sources = read_rows(store, "sources")
    probed = Ledger(store).read(curation.source_spec)
    probed = probed.drop_columns(
        [name for name in probed.column_names if name in sources.column_names and name != "key"]
    )
    with open_database() as connection:
        connection.register("sources", sources)
        connection.register("probed", probed)
        joined = connection.sql("SELECT * FROM sources LEFT JOIN probed USING (key)").to_arrow_table()
    result = cut(joined, curation.config.cut, curation.source_spec.fingerprint)
    _write(store, "clips", result.clips)
    store.write_table("outcomes.parquet", result.outcomes)


def score(curation: Curation, report: Callable[[str], None]) -> Finished:
    clips = read_rows(Store(curation.config.root), "clips")
    return execute(curation.clips, clips, curation.config.executor, "clips", report)


def decide(curation: Curation) -> pa.Table:
    """Select from the scores; writes ``verdicts.parquet``."""
    store = Store(curation.config.root)
    clips = read_rows(store, "clips", ["key"])
    scores = load_ruled(Ledger(store), clips, curation.specs, curation.rules)
    verdicts = select(scores, curation.rules, curation.config.executor.retry_budget)
    store.write_table("verdicts.parquet", verdicts)
    return verdicts


def accounts(curation: Curation) -> tuple[Account, Account]:
    """The books of the last run, from what is on disk.

    A source counts as kept when it gave clips, as dropped when it was too short or a duplicate.
    """
    store = Store(curation.config.root)
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
    store = Store(curation.config.root)
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
    store.write_json(f"runs/{started:%Y%m%dT%H%M%S%f}.json", record)
    for account in books:
        if account.difference:
            raise AccountingError(str(account))
    return books


def progress(curation: Curation) -> dict[str, tuple[StageProgress, ...]]:
    """What each stage has done and has to do, without doing any of it."""
    ledger = Ledger(Store(curation.config.root))
    budget = curation.config.executor.retry_budget
    answer = {}
    for what, spec in (("sources", curation.sources), ("clips", curation.clips)):
        answer[what] = outstanding(ledger, read_rows(ledger.store, what), spec.groups, budget).progress
    return answer


def last_run(store: Store) -> dict[str, Any]:
    files = store.files("runs", ".json")
    return store.read_json(files[-1]) if files else {}


def code_revision() -> str:
    """The checkout's commit, with ``+changes`` where files differ from it; ``unknown`` outside a checkout."""
    folder = Path(__file__).resolve().parents[1]
    try:
        git = ["git", "-C", str(folder)]
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        dirty = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+changes" if dirty.strip() else "")


def machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    version = ".".join(map(str, sys.version_info[:3]))
    return f"{platform.machine()}, {psutil.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}, Python {version}"


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
