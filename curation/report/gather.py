"""Gather the report of a run from its tables, and write it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation.catalogue import tier
from curation.config import Curation
from curation.job import accounts, last_run, read_file, read_rows
from curation.report import ReportInput, StageUse, Step, build
from curation.select import VERDICT_SCHEMA, count_unbroken, load_scores
from engine.isolate import isolated
from engine.jobs import QUARANTINE_SCHEMA
from engine.ledger import Ledger, open_database
from engine.specs import StageSpec
from kit.weights import lookup

MOST_WITH_CURVES = 50_000
TIER_ORDER = ("video", "audio", "audio-video")


def write_report(curation: Curation, content: ReportInput | None = None) -> Path:
    """Build ``report/index.html`` and ``report/summary.json`` under the run's root; gives the page's path.

    For a root on an object store, the pages are written below ``./reports`` instead.
    """
    content = content if content is not None else gather(curation)
    return build(content, _folder(curation.config.root), clips=curation.config.gallery, run=isolated)


def gather(curation: Curation) -> ReportInput:
    """Read everything that the report of a run shows.

    Raises:
        FileNotFoundError: the run has no sources or clips yet.
    """
    store = curation.store
    clips = read_rows(store, "clips")
    # Curves and intervals of millions of clips would not fit; of a corpus that size the report shows the numbers.
    scores = load_scores(curation.ledger, clips, curation.specs, scalars_only=len(clips) > MOST_WITH_CURVES)
    verdicts = read_file(store, "verdicts.parquet", VERDICT_SCHEMA)
    with open_database() as connection:
        connection.register("clips", clips.select(["key"]))
        connection.register("verdicts", verdicts)
        query = "SELECT verdict, reasons, pending FROM clips LEFT JOIN verdicts USING (key) ORDER BY key"
        decided = connection.sql(query).to_arrow_table()
    for name in decided.column_names:
        scores = scores.append_column(name, decided[name])
    books = accounts(curation)
    quarantine = [
        row
        for what in ("source", "clip")
        for row in read_file(store, f"quarantine/{what}.parquet", QUARANTINE_SCHEMA).to_pylist()
    ]
    return ReportInput(
        scores=scores,
        rules=curation.rules,
        funnel=funnel(curation, scores, books),
        accounts=books,
        quarantine=quarantine,
        stages=[_use(curation.ledger, spec) for spec in (curation.source_spec, *curation.specs)] + _not_run(curation),
        run=last_run(store),
        speech="sentences.intervals" if "sentences.intervals" in scores.column_names else None,
    )


def funnel(curation: Curation, scores: pa.Table, books: tuple[Any, Any]) -> list[Step]:
    """From the listing to what is kept; "after" a tier are the clips that no rule up to it drops.

    Args:
        scores: at least what :func:`curation.select.load_ruled` gives.
        books: accounts of the sources and of the clips.
    """
    sources, clips = books
    outcomes = read_file(curation.store, "outcomes.parquet", pa.schema([("outcome", pa.string())]))
    duplicates = pc.sum(pc.equal(outcomes["outcome"], "duplicate")).as_py() or 0
    readable = sources.rows_in - sources.quarantined - sources.undecided
    steps = [
        Step("listed", sources.rows_in, "sources"),
        Step("readable", readable, "sources"),
        Step("unique", readable - duplicates, "sources"),
        Step("long enough", sources.kept, "sources"),
        Step("cut", clips.rows_in),
    ]
    tiers = [TIER_ORDER[:number] for number in range(1, len(TIER_ORDER))]
    rule_sets = [[rule for rule in curation.rules if tier(rule.stage) in included] for included in tiers]
    passed = count_unbroken(scores, rule_sets)
    steps += [Step(f"after {name}", count) for name, count in zip(TIER_ORDER, passed, strict=False)]
    steps.append(Step("kept", clips.kept))
    return steps


def _use(ledger: Ledger, spec: StageSpec) -> StageUse:
    with open_database() as connection:
        ledger.view(connection, spec, "scores")
        items, seconds, cpu, peak = connection.sql(
            "SELECT count(*), sum(seconds + open_seconds), sum(cpu_seconds), max(peak_memory) FROM scores "
            "WHERE status <> 'skipped'"
        ).fetchall()[0]
    return StageUse(
        name=spec.name,
        tier=tier(spec.name),
        fingerprint=spec.fingerprint,
        config=dict(spec.build().config.model_dump(mode="json")),
        weights=[
            {"name": name, "sha256": digest, "licence": lookup(name).licence}
            for name, digest in spec.weight_hashes.items()
        ],
        seconds=seconds,
        cpu_seconds=cpu,
        items=items,
        items_per_second=items / seconds if seconds else None,
        peak_memory=peak,
        fallback_for=spec.fallback_for,
        not_run=False,
    )


def _not_run(curation: Curation) -> list[StageUse]:
    """Stages that some threshold reads but this run has not: their rules were not applied, which the report says."""
    replaced = set(curation.fallbacks)
    stages = dict.fromkeys(rule.stage for rule in curation.unapplied if rule.stage not in replaced)
    return [StageUse(name=name, tier=tier(name), not_run=True) for name in stages]


def _folder(root: str) -> Path:
    if "://" in root and not root.startswith("file://"):
        return Path("reports") / root.rstrip("/").rsplit("/", 1)[-1]
    return Path(root.removeprefix("file://")) / "report"
