"""Read what a release is built from: the clips to publish, those that are not, and how all of it was made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation.config import Curation
from curation.job import accounts, read_rows
from curation.report.gather import funnel
from curation.select import load_ruled, select
from engine.items import stable_hash
from engine.ledger import open_database
from kit.config import ConfigError
from kit.weights import lookup
from media.clip import MediaError
from media.open import open_bytes
from pipelines.release.config import ReleaseConfig
from pipelines.release.shard import parquet_view, published_uri, speaker_of
from pipelines.release.split import assign_splits
from unitalking_data.layout import CLIPS_SCHEMA, Previous
from unitalking_data.schema import ATOM_FIELDS, REF_FIELDS, REJECTED_SCHEMA

FORMAT = 1  # raised when the same input would give other files


@dataclass(frozen=True)
class Inputs:
    """What goes into a release.

    Attributes:
        clips: rows of ``engine.items.Clip`` with ``speaker`` and ``audio_shift_s``, to be published.
        plan: ``key``, ``split``, ``fingerprint`` of the same.
        rejected: rows of ``REJECTED_SCHEMA``: all others.
        process: for the card; see :mod:`pipelines.release.card`.
    """

    clips: pa.Table
    plan: pa.Table
    rejected: pa.Table
    process: dict[str, Any]


def read_inputs(config: ReleaseConfig, curation: Curation, previous: Previous | None) -> Inputs:
    """Select again from the scores, and sort out what may not be published.

    Selecting again makes sure that the card's thresholds are those that were applied.

    Raises:
        ConfigError: captions or references are not what they should be, or nothing is left to publish.
        FileNotFoundError: nothing has been curated yet, or a folder or the takedown list is missing.
    """
    clips = read_rows(curation.store, "clips")
    scores = load_ruled(curation.ledger, clips, curation.specs, curation.rules)
    verdicts = select(scores, curation.rules, curation.config.executor.retry_budget)
    clips = clips.sort_by("key")
    place = pc.index_in(clips["key"], value_set=verdicts["key"].combine_chunks())
    for name in ("verdict", "reasons"):
        clips = clips.append_column(name, verdicts[name].take(place))
    provenance = clips["provenance"].to_pylist()
    for column in dict.fromkeys(c for c in (config.split.speaker, *config.split.together) if c):
        values = [speaker_of(text, column) for text in provenance]
        if all(value is None for value in values):
            raise ConfigError(f"split: no clip's listing has a column {column!r}")
        clips = clips.append_column(f"listed.{column}", pa.array(values, pa.string()))
    speaker = config.split.speaker
    clips = clips.append_column("speaker", clips[f"listed.{speaker}"] if speaker else pa.nulls(len(clips), pa.string()))
    clips = _unpublished(clips, config, previous)
    kept = clips.filter(pc.equal(clips["verdict"], "kept"))
    if not len(kept):
        raise ConfigError(f"none of the {len(clips)} clips under {curation.config.root} may be published")
    kept = kept.append_column("audio_shift_s", _shifts(config, curation, kept))
    together = ("content", *(name for name in kept.column_names if name.startswith("listed.")))
    before = previous.index.select(["key", "split"]) if previous else None
    split = assign_splits(kept, together, config.split.shares, before=before)
    plan = kept.select(["key"]).append_column("split", split).append_column("fingerprint", _fingerprints(config, kept))
    rejected = clips.filter(pc.not_equal(clips["verdict"], "kept"))
    return Inputs(
        clips=kept.drop_columns(["verdict", "reasons", *together[1:]]),
        plan=plan.cast(CLIPS_SCHEMA),
        rejected=_rejected(rejected, set(_withdrawn_before(previous)) - set(rejected["key"].to_pylist())),
        process=_process(config, curation, scores, len(kept), rejected),
    )


def _unpublished(clips: pa.Table, config: ReleaseConfig, previous: Previous | None) -> pa.Table:
    """The verdict of clips that may not be published becomes ``unlicensed`` or ``withdrawn``."""
    verdict, reasons = clips["verdict"], clips["reasons"]
    if config.licences is not None:
        refused = pc.invert(pc.is_in(clips["licence"], value_set=pa.array(config.licences, pa.string())))
        refused = pc.and_(refused, pc.equal(verdict, "kept"))
        verdict = pc.if_else(refused, "unlicensed", verdict)
        names = [[f"licence {name or 'not stated'}"] for name in clips["licence"].to_pylist()]
        reasons = pc.if_else(refused, pa.array(names, pa.list_(pa.string())), reasons)
    withdrawn = pa.array([*_takedown(config), *_withdrawn_before(previous)], pa.string())
    named = [pc.is_in(clips[name], value_set=withdrawn) for name in ("key", "content", "source_uri", "speaker")]
    taken = pc.or_(pc.or_(named[0], named[1]), pc.or_(named[2], named[3]))
    verdict = pc.if_else(taken, "withdrawn", verdict)
    reasons = pc.if_else(taken, pa.scalar(["takedown"], pa.list_(pa.string())), reasons)
    for name, column in (("verdict", verdict), ("reasons", reasons)):
        clips = clips.set_column(clips.schema.get_field_index(name), name, column)
    return clips


def _takedown(config: ReleaseConfig) -> list[str]:
    """Lines of the takedown list."""
    if not config.takedown:
        return []
    try:
        with open_bytes(config.takedown) as file:
            text = file.read().decode("utf-8")
    except MediaError as error:
        raise ConfigError(f"takedown: {error}") from None
    return [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def _withdrawn_before(previous: Previous | None) -> list[str]:
    """Keys that earlier versions withdrew."""
    if previous is None:
        return []
    parts = [entry.path for entry in previous.manifest.files if entry.path.startswith("rejected/")]
    if not parts:
        return []
    rows = previous.store.read_table(parts, ["key", "verdict"])
    return rows.filter(pc.equal(rows["verdict"], "withdrawn"))["key"].to_pylist()


def _shifts(config: ReleaseConfig, curation: Curation, clips: pa.Table) -> pa.Array:
    """Seconds by which each clip's audio is moved later, to the millisecond."""
    specs = {spec.name: spec for spec in curation.specs}
    if not config.sync.correct:
        return pa.array([0.0] * len(clips))
    if "lip_sync" not in specs:
        raise ConfigError("sync.correct needs the stage lip_sync, which this curation does not run")
    with open_database() as connection:
        curation.ledger.view(connection, specs["lip_sync"], "sync")
        rows = connection.execute(
            "SELECT key, offset_s FROM sync WHERE answer <> 'undecided' AND abs(offset_s) BETWEEN ? AND ?",
            [config.sync.min_s, config.sync.max_s],
        ).fetchall()
    offsets = dict(rows)
    return pa.array([-round(offsets.get(key, 0.0), 3) + 0.0 for key in clips["key"].to_pylist()])


def _fingerprints(config: ReleaseConfig, clips: pa.Table) -> pa.Array:
    """Of each clip, the hash of all that its files are made from."""
    media = config.media.model_dump(exclude={"time_limit_s"})
    with open_database() as connection:
        connection.register("clips", clips.select(["key"]))
        captions = _hashes(connection, config.captions, "captions", [f.name for f in ATOM_FIELDS])
        references = _hashes(connection, config.references, "references", [f.name for f in REF_FIELDS] + ["audio"])
    names = ("key", "content", "source_uri", "start_s", "end_s", "licence", "provenance", "speaker", "audio_shift_s")
    rows = zip(*(clips[name].to_pylist() for name in names), strict=True)
    return pa.array(
        [
            stable_hash(
                FORMAT, media, *row[:2], published_uri(row[2]), *row[3:], captions.get(row[0]), references.get(row[0])
            )
            for row in rows
        ]
    )


def _hashes(connection: Any, folder: str | None, name: str, known: Sequence[str]) -> dict[str, str]:
    """Of each clip, a hash of its rows in a folder of tables, over the columns that are published."""
    if not folder:
        return {}
    parquet_view(connection, folder, name)
    found = [row[0] for row in connection.execute(f'DESCRIBE "{name}"').fetchall()]
    needed = {"captions": ["key"], "references": ["key", "take", "audio"]}[name]
    columns = [column for column in known if column in found and column != "key"]
    if missing := [column for column in needed if column not in found]:
        raise ConfigError(f"{name}: the tables in {folder} have no column {', '.join(missing)}")
    if not columns:
        raise ConfigError(f"{name}: the tables in {folder} have none of the columns {', '.join(known)}")
    order = "take" if name == "references" else "key"
    grouped = "key, take" if name == "references" else "key"
    twice = connection.execute(
        f'SELECT key FROM "{name}" GROUP BY {grouped} HAVING count(*) > 1 ORDER BY key LIMIT 3'
    ).fetchall()
    if twice:
        raise ConfigError(f"{name}: rows stand twice in {folder}, of the clips {', '.join(row[0] for row in twice)}")
    packed = ", ".join(f'"{column}" := "{column}"' for column in columns)
    query = (
        f"SELECT key, md5(string_agg(md5(struct_pack({packed})::VARCHAR), ',' ORDER BY \"{order}\")) "
        f'FROM "{name}" SEMI JOIN clips USING (key) GROUP BY key'
    )
    return dict(connection.execute(query).fetchall())


def _rejected(clips: pa.Table, gone: set[str]) -> pa.Table:
    """Clips that are not published; ``gone`` were withdrawn earlier and are not among the curated ones any more."""
    rows = [{"key": key, "verdict": "withdrawn", "reasons": ["takedown"]} for key in sorted(gone)]
    for row in clips.to_pylist():
        kept = {name: row[name] for name in ("key", "verdict", "reasons")}
        if row["verdict"] != "withdrawn":
            place = {name: row[name] for name in ("start_s", "end_s", "licence")}
            kept |= {"source": row["content"], "source_uri": published_uri(row["source_uri"]), **place}
        rows.append(kept)
    return pa.Table.from_pylist(rows, schema=REJECTED_SCHEMA)


def _process(
    config: ReleaseConfig, curation: Curation, scores: pa.Table, published: int, rejected: pa.Table
) -> dict[str, Any]:
    """How the release is made, as data for its card. Nothing of this machine is in it."""
    sources, clips = accounts(curation)
    steps = [asdict(step) for step in funnel(curation, scores, (sources, replace(clips, kept=published)))]
    rules = [rule.model_dump(mode="json") for rule in curation.rules]
    used: dict[tuple[str, str], list[str]] = {}
    for spec in (curation.source_spec, *curation.specs):
        for model in spec.weight_hashes.items():
            used.setdefault(model, []).append(spec.name)
    models = [
        {
            "name": name,
            "use": lookup(name).use,
            "stage": ", ".join(stages),
            "licence": lookup(name).licence,
            "sha256": digest,
            "note": lookup(name).licence_note,
        }
        for (name, digest), stages in used.items()
    ]
    pending = pc.sum(pc.is_in(rejected["verdict"], value_set=pa.array(["undecided", "quarantined"]))).as_py() or 0
    limits = [
        *(
            f"{instead} stood in for {stage}, whose models were missing"
            for stage, instead in curation.fallbacks.items()
        ),
        *([f"{pending} clips are not published because a score of theirs is missing"] if pending else []),
    ]
    return {
        "title": config.title,
        "description": config.description,
        "media": config.media.model_dump(mode="json", exclude={"time_limit_s"}),
        "sync": config.sync.model_dump(mode="json") if config.sync.correct else {},
        "split": {
            "shares": config.split.shares,
            "together": [name for name in (config.split.speaker, *config.split.together) if name],
        },
        "funnel": steps,
        "thresholds": rules,
        "not_applied": [
            f"not applied, {rule.stage} did not run: {rule.reason} ({rule.score})" for rule in curation.unapplied
        ],
        "stages": [
            {"name": spec.name, "version": spec.fingerprint, "fallback_for": spec.fallback_for}
            for spec in (curation.source_spec, *curation.specs)
        ],
        "models": models,
        "limits": limits,
    }
