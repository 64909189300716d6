"""What there is to do: items minus final answers, worked out by one query over the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from engine.ledger import Ledger
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


def final_failure(alias: str, retry_budget: int) -> str:
    """SQL that is true for a failed row that will not be tried again."""
    kinds = ", ".join(f"'{kind}'" for kind in sorted(FINAL_KINDS))
    return f"({alias}.status = 'failed' AND ({alias}.error_kind IN ({kinds}) OR {alias}.attempts >= {retry_budget}))"


def outstanding(ledger: Ledger, items: pa.Table, groups: Sequence[GroupSpec], retry_budget: int) -> Work:
    """Join ``items`` (one row each, with ``key``) against every stage's table.

    A stage is to do where it has no row, where it failed with attempts left, or where it was skipped by a gate
    that its scores would pass today: loosening a gate schedules exactly the clips that it had shut out.
    """
    specs = [spec for group in groups for spec in group.stages]
    rules = {spec.name: group.gate_rules(spec.name) for group in groups for spec in group.stages}
    gating = sorted({rule.score for stage_rules in rules.values() for rule in stage_rules})
    by_name = {spec.name: spec for spec in specs}
    with duckdb.connect() as connection:
        connection.register("items", items)
        for spec in specs:
            ledger.view(connection, spec, f"s_{spec.name}")
        todo = {spec.name: _todo(spec, rules[spec.name], by_name, retry_budget) for spec in specs}
        flags = ", ".join(f"{condition} AS {_flag(name)}" for name, condition in todo.items())
        joins = " ".join(f'LEFT JOIN "s_{s.name}" {_alias(s.name)} ON {_alias(s.name)}.key = items.key' for s in specs)
        connection.execute(
            f"CREATE TEMP TABLE work AS SELECT items.*, {_known(gating, by_name)} AS known, "
            f"{_attempts(specs)} AS attempts, {flags} FROM items {joins}"
        )
        progress = []
        for spec in specs:
            counts = connection.execute(
                f"SELECT count(*) FILTER (WHERE {_flag(spec.name)}), count(*) FROM work"
            ).fetchall()[0]
            given_up = connection.execute(
                f'SELECT count(*) FROM "s_{spec.name}" s JOIN items USING (key) '
                f"WHERE {final_failure('s', retry_budget)}"
            ).fetchall()[0][0]
            progress.append(StageProgress(spec.name, counts[1] - counts[0], counts[0], given_up))
        names = ", ".join(f"CASE WHEN {_flag(spec.name)} THEN '{spec.name}' END" for spec in specs)
        columns = ", ".join(f'"{name}"' for name in items.column_names)
        table = connection.sql(
            f"SELECT {columns}, list_filter([{names}], lambda name: name IS NOT NULL) AS todo, known, attempts "
            f"FROM work WHERE {' OR '.join(_flag(spec.name) for spec in specs)} ORDER BY key"
        ).to_arrow_table()
    return Work(table, tuple(progress))


def _alias(stage: str) -> str:
    return f'"t_{stage}"'


def _flag(stage: str) -> str:
    return f'"todo_{stage}"'


def _todo(spec: StageSpec, rules: Sequence[Rule], specs: dict[str, StageSpec], retry_budget: int) -> str:
    alias = _alias(spec.name)
    shut = " OR ".join(
        f"({_alias(rule.stage)}.status IN ('value', 'not_applicable') AND {rule.sql(_column(rule))})"
        for rule in rules
        if rule.stage in specs
    )
    return (
        f"CASE WHEN {alias}.key IS NULL THEN TRUE "
        f"WHEN {alias}.status = 'skipped' THEN NOT COALESCE({shut or 'FALSE'}, FALSE) "
        f"WHEN {alias}.status = 'failed' THEN NOT {final_failure(alias, retry_budget)} ELSE FALSE END"
    )


def _column(rule: Rule) -> str:
    return f'{_alias(rule.stage)}."{rule.column}"'


def _known(gating: Sequence[str], specs: dict[str, StageSpec]) -> str:
    stages: dict[str, list[str]] = {}
    for score in gating:
        stage, _, column = score.partition(".")
        if stage in specs:
            stages.setdefault(stage, []).append(column)
    entries = []
    for stage, columns in stages.items():
        values = ", ".join(f"'{column}', {_alias(stage)}.\"{column}\"" for column in columns)
        known = f"json_object('status', {_alias(stage)}.status, 'values', json_object({values}))"
        entries.append(f"CASE WHEN {_alias(stage)}.key IS NULL THEN '{{}}' ELSE json_object('{stage}', {known}) END")
    merged = "'{}'::JSON"
    for entry in entries:
        merged = f"json_merge_patch({merged}, {entry})"
    return f"CAST({merged} AS VARCHAR)"


def _attempts(specs: Sequence[StageSpec]) -> str:
    merged = "'{}'::JSON"
    for spec in specs:
        alias = _alias(spec.name)
        entry = f"CASE WHEN {alias}.status = 'failed' THEN json_object('{spec.name}', {alias}.attempts) ELSE '{{}}' END"
        merged = f"json_merge_patch({merged}, {entry})"
    return f"CAST({merged} AS VARCHAR)"
