"""What there is to do: items minus final answers, worked out by one query over the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from engine.ledger import Ledger, open_database
from engine.rules import Rule
from engine.specs import GroupSpec, StageSpec
from engine.stage import FINAL_KINDS


@dataclass(frozen=True)
class StageProgress:
    """How many items a stage has answered for good, has to do, and has given up."""

    stage: str
    done: int
    todo: int
    quarantined: int


@dataclass(frozen=True)
class Work:
    """Items with something to do: the item's columns, ``todo``, ``known`` and ``attempts``; and counts by stage."""

    table: pa.Table
    progress: tuple[StageProgress, ...]


def final_failure(stage: str, retry_budget: int) -> str:
    """SQL over a :meth:`Ledger.latest` table: the stage failed and will not be tried again."""
    return failed_for_good(*(f'"{stage}.{column}"' for column in ("status", "error_kind", "attempts")), retry_budget)


def failed_for_good(status: str, error_kind: str, attempts: str, retry_budget: int) -> str:
    """The same over any columns of those meanings."""
    kinds = ", ".join(f"'{kind}'" for kind in sorted(FINAL_KINDS))
    return f"COALESCE({status} = 'failed' AND ({error_kind} IN ({kinds}) OR {attempts} >= {retry_budget}), FALSE)"


def outstanding(ledger: Ledger, items: pa.Table, groups: Sequence[GroupSpec], retry_budget: int) -> Work:
    """Join ``items`` (one row each, with ``key``) against every stage's table.

    A stage is to do where it has no row, where it failed with attempts left, or where it was skipped by a gate
    that its scores would pass today: loosening a gate schedules exactly the clips that it had shut out.
    """
    specs = [spec for group in groups for spec in group.stages]
    rules = {spec.name: group.gate_rules(spec.name) for group in groups for spec in group.stages}
    gating = sorted({rule.score for stage_rules in rules.values() for rule in stage_rules})
    by_name = {spec.name: spec for spec in specs}
    with open_database() as connection:
        connection.register("items", items)
        ledger.latest(connection, specs, [score for score in gating if score.partition(".")[0] in by_name], "latest")
        todo = {spec.name: _todo(spec, rules[spec.name], by_name, retry_budget) for spec in specs}
        flags = ", ".join(f"{condition} AS {_flag(name)}" for name, condition in todo.items())
        connection.execute(
            f"CREATE TEMP TABLE work AS SELECT items.key AS item_key, {flags}, "
            f"{_known(gating, by_name)} AS known, {_attempts(specs)} AS attempts "
            "FROM items LEFT JOIN latest ON latest.key = items.key"
        )
        counted = ", ".join(f"count(*) FILTER (WHERE {_flag(spec.name)})" for spec in specs)
        lost = ", ".join(f"count(*) FILTER (WHERE {final_failure(spec.name, retry_budget)})" for spec in specs)
        to_do = connection.sql(f"SELECT {counted} FROM work").fetchall()[0]
        given_up = connection.sql(f"SELECT {lost} FROM items JOIN latest USING (key)").fetchall()[0]
        progress = [
            StageProgress(spec.name, len(items) - to_do[number], to_do[number], given_up[number])
            for number, spec in enumerate(specs)
        ]
        names = ", ".join(f"CASE WHEN {_flag(spec.name)} THEN '{spec.name}' END" for spec in specs)
        table = connection.sql(
            f"SELECT items.*, list_filter([{names}], lambda name: name IS NOT NULL) AS todo, known, attempts "
            f"FROM work JOIN items ON items.key = item_key WHERE {' OR '.join(_flag(spec.name) for spec in specs)} "
            "ORDER BY items.key"
        ).to_arrow_table()
    return Work(table, tuple(progress))


def _flag(stage: str) -> str:
    return f'"todo_{stage}"'


def _todo(spec: StageSpec, rules: Sequence[Rule], specs: dict[str, StageSpec], retry_budget: int) -> str:
    status = f'"{spec.name}.status"'
    shut = " OR ".join(
        f"(\"{rule.stage}.status\" IN ('value', 'not_applicable') AND " + rule.sql(f'"{rule.score}"') + ")"
        for rule in rules
        if rule.stage in specs
    )
    return (
        f"CASE WHEN {status} IS NULL THEN TRUE "
        f"WHEN {status} = 'skipped' THEN NOT COALESCE({shut or 'FALSE'}, FALSE) "
        f"WHEN {status} = 'failed' THEN NOT {final_failure(spec.name, retry_budget)} ELSE FALSE END"
    )


def _known(gating: Sequence[str], specs: dict[str, StageSpec]) -> str:
    """SQL of a JSON object: of every stage that some gate reads, its status and the values that gates read."""
    stages: dict[str, list[str]] = {}
    for score in gating:
        stage, _, column = score.partition(".")
        if stage in specs:
            stages.setdefault(stage, []).append(column)
    entries = []
    for stage, columns in stages.items():
        values = ", ".join(f"'{column}', \"{stage}.{column}\"" for column in columns)
        known = f"json_object('status', \"{stage}.status\", 'values', json_object({values}))"
        entries.append(f"CASE WHEN \"{stage}.status\" IS NULL THEN '{{}}' ELSE json_object('{stage}', {known}) END")
    return _merged(entries)


def _attempts(specs: Sequence[StageSpec]) -> str:
    """SQL of a JSON object: how often each stage that failed was tried."""
    return _merged(
        f"CASE WHEN \"{spec.name}.status\" = 'failed' "
        f"THEN json_object('{spec.name}', \"{spec.name}.attempts\") ELSE '{{}}' END"
        for spec in specs
    )


def _merged(objects: Iterable[str]) -> str:
    merged = "'{}'::JSON"
    for entry in objects:
        merged = f"json_merge_patch({merged}, {entry})"
    return f"CAST({merged} AS VARCHAR)"
