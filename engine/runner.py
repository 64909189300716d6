"""One group's work on one batch, the same under every executor: score in the guard, record, pass on what gates read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from engine.guard import Guard
from engine.ledger import Ledger
from engine.specs import GroupSpec, Row, WorkItem, part_name, to_work


@dataclass(frozen=True)
class RunSpec:
    """All that a worker needs to know: where rows go, what the items are, the groups in order."""

    ledger: Ledger
    item_type: str
    groups: tuple[GroupSpec, ...]

    def gating_columns(self) -> dict[str, list[str]]:
        """Columns by stage that some gate reads, which therefore travel with the items."""
        columns: dict[str, list[str]] = {}
        for group in self.groups:
            for gate in group.gates:
                for rule in gate.rules:
                    columns.setdefault(rule.stage, []).append(rule.column)
        return columns


class GroupRunner:
    """Scores batches for one group and writes their rows before it answers."""

    def __init__(self, run: RunSpec, group: GroupSpec) -> None:
        self._run, self._group = run, group
        self._ledger, self._guard = run.ledger, Guard(group)
        self._gating = run.gating_columns()

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Take a batch of the work table; give it back with ``known`` brought up to date."""
        work = to_work(batch, self._run.item_type)
        mine = [w for w in work if any(spec.name in w.todo for spec in self._group.stages)]
        if not mine:
            return batch
        rows = self._recorded(mine)
        if rows is None:
            rows = self._guard.score(mine)
            for spec in self._group.stages:
                if rows[spec.name]:
                    self._ledger.append(spec, part_name(mine, self._group.gates), rows[spec.name])
        known = [json.dumps(self._known(w, rows)) for w in work]
        return batch.set_column(batch.schema.get_field_index("known"), "known", pa.array(known, pa.string()))

    def close(self) -> None:
        self._guard.close()

    def _recorded(self, work: Sequence[WorkItem]) -> dict[str, list[Row]] | None:
        """Rows of this very batch from an earlier try whose answer was lost (its worker crashed), if all are there."""
        rows = {}
        for spec in self._group.stages:
            if not any(spec.name in w.todo for w in work):
                rows[spec.name] = []
                continue
            found = self._ledger.recorded(spec, part_name(work, self._group.gates))
            if found is None:
                return None
            rows[spec.name] = found
        return rows

    def _known(self, work: WorkItem, rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
        known = dict(work.known)
        for stage, columns in self._gating.items():
            for row in rows.get(stage, ()):
                if row.key == work.item.key:
                    known[stage] = {"status": row.status, "values": {c: row.values.get(c) for c in columns}}
        return known
