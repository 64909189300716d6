"""Selection: a pure function of scores and thresholds that takes seconds and can be repeated at no cost.

A clip is *dropped* when a measured score breaks a rule (all broken rules are its reasons), else *quarantined* when
a stage that some rule reads has failed for good, else *undecided* when such a stage failed with attempts left or has
not run, else *kept*. A gate that shut out later stages is itself such a broken rule, only looser, so a gated clip is
dropped by the rule on the score that the gate read; where it is not, the clip stays undecided until it is scored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from curation.thresholds import Threshold
from engine.ledger import Ledger, open_database
from engine.specs import StageSpec
from engine.work import final_failure

VERDICTS = ("kept", "dropped", "undecided", "quarantined")


def load_scores(ledger: Ledger, clips: pa.Table, specs: Sequence[StageSpec], *, scalars_only: bool = False) -> pa.Table:
    """One row a clip: its columns, then ``<stage>.status``, ``.detail``, ``.attempts``, ``.error_kind``,
    ``.seconds``, ``.cpu_seconds``, ``.open_seconds`` and the stage's values as ``<stage>.<column>``.

    ``scalars_only`` leaves out list and struct columns. Value columns keep their descriptions as metadata.
    """
    fields: list[pa.Field] = list(clips.schema)
    with open_database() as connection:
        connection.register("clips", clips)
        columns, joins = ["clips.*"], []
        for spec in specs:
            name = spec.name
            ledger.view(connection, spec, f"s_{name}")
            joins.append(f'LEFT JOIN "s_{name}" ON "s_{name}".key = clips.key')
            columns.append(f'coalesce("s_{name}".error, "s_{name}".reason) AS "{name}.detail"')
            fields.append(pa.field(f"{name}.detail", pa.string()))
            for common, kind in _COMMON.items():
                columns.append(f'"s_{name}".{common} AS "{name}.{common}"')
                fields.append(pa.field(f"{name}.{common}", kind))
            for value in spec.cls.values:
                if scalars_only and pa.types.is_nested(value.type):
                    continue
                columns.append(f'"s_{name}"."{value.name}" AS "{name}.{value.name}"')
                fields.append(value.with_name(f"{name}.{value.name}"))
        query = f"SELECT {', '.join(columns)} FROM clips {' '.join(joins)} ORDER BY clips.key"
        table = connection.sql(query).to_arrow_table()
    return table.cast(pa.schema(fields))


def load_ruled(ledger: Ledger, clips: pa.Table, specs: Sequence[StageSpec], rules: Sequence[Threshold]) -> pa.Table:
    """What :func:`select` reads and no more, for millions of clips: ``key``, states of all stages, ruled scores."""
    with open_database() as connection:
        connection.register("clips", clips.select(["key"]))
        ledger.latest(connection, specs, {rule.score for rule in rules}, "latest")
        query = "SELECT * FROM clips LEFT JOIN latest USING (key) ORDER BY key"
        return connection.sql(query).to_arrow_table()


_COMMON = {
    "status": pa.string(),
    "attempts": pa.int32(),
    "error_kind": pa.string(),
    "seconds": pa.float64(),
    "cpu_seconds": pa.float64(),
    "open_seconds": pa.float64(),
}


def select(scores: pa.Table, rules: Sequence[Threshold], retry_budget: int) -> pa.Table:
    """Verdicts: ``key``, ``verdict`` (one of ``VERDICTS``), ``reasons`` in the rules' order, ``pending`` stages.

    ``rules`` must all read stages that are in ``scores``.
    """
    with open_database() as connection:
        connection.register("scores", scores)
        query = f"""
            SELECT key, {_verdict(rules, retry_budget)} AS verdict,
                {_listed(_broken(rules))} AS reasons, {_listed(_pending(rules))} AS pending
            FROM scores ORDER BY key"""
        table = connection.sql(query).to_arrow_table()
    return table.cast(VERDICT_SCHEMA)


def count_unbroken(scores: pa.Table, rule_sets: Sequence[Sequence[Threshold]]) -> list[int]:
    """How many clips break no rule of each of several sets, in one pass; one that is not scored breaks none."""
    broken = (" OR ".join(_broken(rules).values()) or "FALSE" for rules in rule_sets)
    counts = ", ".join(f"count(*) FILTER (WHERE NOT ({condition}))" for condition in broken)
    with open_database() as connection:
        connection.register("scores", scores)
        return list(connection.sql(f"SELECT {counts} FROM scores").fetchall()[0])


def _broken(rules: Sequence[Threshold]) -> dict[str, str]:
    """By reason, SQL that is true where a rule with that reason is broken; in the rules' order."""
    conditions: dict[str, list[str]] = {}
    for rule in rules:
        measured = f"\"{rule.stage}.status\" IN ('value', 'not_applicable')"
        broken = rule.sql(f'"{rule.score}"')
        conditions.setdefault(rule.reason, []).append(f"COALESCE({measured} AND {broken}, FALSE)")
    return {reason: " OR ".join(each) for reason, each in conditions.items()}


def _pending(rules: Sequence[Threshold]) -> dict[str, str]:
    """By stage that a rule reads, SQL that is true where it has not answered."""
    return {rule.stage: f"COALESCE(\"{rule.stage}.status\" IN ('failed', 'skipped'), TRUE)" for rule in rules}


def _verdict(rules: Sequence[Threshold], retry_budget: int) -> str:
    lost = (final_failure(stage, retry_budget) for stage in _pending(rules))
    conditions = (_broken(rules).values(), lost, _pending(rules).values())
    dropped, quarantined, undecided = (" OR ".join(each) or "FALSE" for each in conditions)
    return (
        f"CASE WHEN {dropped} THEN 'dropped' WHEN {quarantined} THEN 'quarantined' "
        f"WHEN {undecided} THEN 'undecided' ELSE 'kept' END"
    )


def _listed(conditions: Mapping[str, str]) -> str:
    """SQL list of the names whose condition holds, in their order."""
    if not conditions:
        return "CAST([] AS VARCHAR[])"
    cases = ", ".join(f"CASE WHEN {condition} THEN '{name}' END" for name, condition in conditions.items())
    return f"list_filter([{cases}], lambda name: name IS NOT NULL)"


VERDICT_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("verdict", pa.string(), nullable=False),
        pa.field("reasons", pa.list_(pa.string())),
        pa.field("pending", pa.list_(pa.string())),
    ]
)
