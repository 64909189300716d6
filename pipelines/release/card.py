"""Write DATASET_CARD.md, SCHEMA.md and LICENSES.json from what the release holds and how it was made.

``process`` is data of these names, each of them optional: ``title``, ``description``; ``media``, ``split`` and ``sync``
(settings by name); ``funnel`` (rows ``name, count, unit``); ``thresholds`` (rows ``reason, score, min, max, absent,
why``); ``stages`` (rows ``name, version, fallback_for``); ``models`` (rows ``name, use, stage, licence, sha256,
note``); ``not_applied`` and ``limits`` (sentences); ``code_revision``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2
import pyarrow.parquet as pq

from pipelines.release.composition import ATOMS, MEASURES, Facts, count_facts, leaves, quantiles
from unitalking_data.licences import DUTIES, PERMISSIONS, lookup, together
from unitalking_data.manifest import FileEntry, Manifest
from unitalking_data.schema import REFERENCES, description_of
from unitalking_data.storage import Store

CARD, SCHEMA, LICENSES = "DATASET_CARD.md", "SCHEMA.md", "LICENSES.json"
TABLES = ("meta", "refs", "rejected")
PROCESS = (
    *("title", "description", "media", "split", "sync", "funnel", "thresholds", "stages", "models"),
    *("not_applied", "limits", "code_revision"),
)


def write_documents(store: Store, manifest: Manifest) -> list[FileEntry]:
    """Write the three documents of a release whose tables are there; returns their entries for the manifest."""
    parts = {table: [f.path for f in manifest.files if f.path.startswith(f"{table}/")] for table in TABLES}
    facts = count_facts(store, parts)
    licences = licence_document(facts, manifest.process)
    return [
        _write(store, LICENSES, json.dumps(licences, indent=1, ensure_ascii=False) + "\n"),
        _write(store, SCHEMA, schema_document(store, parts, facts)),
        _write(store, CARD, card_document(manifest, facts, licences)),
    ]


def licence_document(facts: Facts, process: Mapping[str, Any]) -> dict[str, Any]:
    """Licences of media and of models with what they permit; ``together`` is what holds for the media as a whole."""
    media = [
        {
            "licence": name,
            "clips": facts.counts["licence"][name],
            "seconds": round(facts.licence_seconds[name], 3),
            **lookup(name).model_dump(),
        }
        for name in sorted(facts.licence_seconds)
    ]
    voices = [
        {"licence": name or "", "takes": count, **lookup(name or "").model_dump()}
        for name, count in sorted(facts.reference_licences.items(), key=str)
    ]
    models = [{**model, "terms": lookup(model.get("licence", "")).model_dump()} for model in process.get("models", [])]
    return {
        "note": "Summaries for sorting data, not legal advice; null is unknown. The licence texts decide.",
        "media": media,
        "references": voices,
        "models": models,
        "together": together([lookup(entry["licence"]) for entry in (*media, *voices)]),
    }


def schema_document(store: Store, parts: Mapping[str, list[str]], facts: Facts) -> str:
    tables = []
    for table, names in parts.items():
        if not names:
            continue
        with store.open(names[0]) as stream:
            schema = pq.read_schema(stream)
        rows = facts.rows[table]
        columns = []
        for path, column in leaves(schema):
            filled = facts.filled[table].get(path)
            share = "" if filled is None or not rows else f"{100 * filled / rows:.3g} %"
            kind = "struct" if str(column.type).startswith("struct") else str(column.type)
            columns.append({"path": path, "type": kind, "filled": share, "description": description_of(column)})
        tables.append({"name": table, "rows": rows, "files": len(names), "columns": columns})
    return _template("SCHEMA.md.j2").render(tables=tables)


def card_document(manifest: Manifest, facts: Facts, licences: Mapping[str, Any]) -> str:
    return _template("DATASET_CARD.md.j2").render(
        m=manifest,
        process={**dict.fromkeys(PROCESS), **manifest.process},
        facts=facts,
        splits={name: asdict(totals) for name, totals in manifest.splits.items()},
        patterns={split: shard_pattern(manifest, split) for split in manifest.splits},
        seconds=sum(totals.seconds for totals in manifest.splits.values()),
        durations=quantiles(facts.durations_s),
        measures={MEASURES[name]: quantiles(values) for name, values in facts.measures.items()},
        captions=[name for name in manifest.columns if name in ATOMS],
        references=REFERENCES if "references" in manifest.columns else 0,
        licences=licences,
        permissions=(*PERMISSIONS, *DUTIES),
    )


def shard_pattern(manifest: Manifest, split: str) -> str:
    """The shards of a split in the brace notation of WebDataset, relative to the release."""
    spans: list[list[int]] = []
    for shard in manifest.shards_of(split):
        if spans and spans[-1][-1] == shard.number - 1:
            spans[-1].append(shard.number)
        else:
            spans.append([shard.number])
    shown = [f"{{{s[0]:06d}..{s[-1]:06d}}}" if len(s) > 1 else f"{s[0]:06d}" for s in spans]
    return f"media/{split}-{shown[0] if len(shown) == 1 else '{' + ','.join(shown) + '}'}.tar"


def _template(name: str) -> jinja2.Template:
    loader = jinja2.FileSystemLoader(Path(__file__).with_name("templates"))
    # Markdown tables: what comes from data must not break out of its cell.
    environment = jinja2.Environment(
        loader=loader, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["cell"] = _cell
    environment.filters["word"] = lambda value: {True: "yes", False: "no", None: "unknown"}[value]
    return environment.get_template(name)


def _cell(value: object) -> str:
    """Text of a table's cell: one line, no markup from data."""
    text = "" if value is None else " ".join(str(value).split())
    for mark in "\\|<>`*[]":
        text = text.replace(mark, f"\\{mark}" if mark not in "<>" else {"<": "&lt;", ">": "&gt;"}[mark])
    return text


def _write(store: Store, name: str, text: str) -> FileEntry:
    data = text.encode()
    store.write_bytes(name, data)
    return FileEntry(name, len(data), hashlib.sha256(data).hexdigest())
