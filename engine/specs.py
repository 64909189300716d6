"""What a run is made of, as plain picklable data: stages by import path, groups, and the items to work on."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from engine.config import GroupConfig
from engine.items import Clip, Source, from_table, stable_hash
from engine.rules import Gate, Rule
from engine.stage import Stage, fingerprint
from kit.weights import file_hash, lookup


@dataclass(frozen=True)
class StageSpec:
    """A configured stage.

    Attributes:
        path: ``module:Class``.
        config: settings, validated by the class's ``Config``.
        weights: explicit files by registry name, which replace the registered ones.
        fallback_for: the stage whose model files were missing, when this one stands in for it.
    """

    path: str
    config: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)
    fallback_for: str | None = None

    @property
    def cls(self) -> type[Stage[Any]]:
        return load_object(self.path)

    @property
    def name(self) -> str:
        return self.cls.name

    def build(self) -> Stage[Any]:
        return self.cls(self.cls.Config.model_validate(dict(self.config)))

    @cached_property
    def fingerprint(self) -> str:
        """Version and hash of settings and model files: the name of the stage's table."""
        return fingerprint(self.build(), self.weight_hashes)

    @cached_property
    def weight_hashes(self) -> dict[str, str]:
        """sha256 of each model file; a registered file without a checksum is identified by its revision."""
        hashes = {}
        for name in self.build().weights():
            explicit = self.weights.get(name)
            entry = lookup(name)
            hashes[name] = file_hash(Path(explicit)) if explicit else entry.sha256 or f"revision {entry.revision}"
        return hashes


@dataclass(frozen=True)
class GroupSpec:
    """Stages that share one opened item and one pool; ``opener`` is the ``module:function`` that opens it."""

    config: GroupConfig
    stages: tuple[StageSpec, ...]
    gates: tuple[Gate, ...] = ()
    opener: str | None = None

    @property
    def name(self) -> str:
        return self.config.name

    def gate_rules(self, stage: str) -> tuple[Rule, ...]:
        return tuple(rule for gate in self.gates if stage in gate.before for rule in gate.rules)


@dataclass(frozen=True)
class WorkItem:
    """An item, the stages it still needs and what earlier stages answered.

    Attributes:
        todo: names of stages without a final answer.
        known: ``{stage: {"status": …, "values": {…}}}`` of the scores that gates read.
        attempts: how often each failed stage was tried before.
    """

    item: Clip | Source
    todo: tuple[str, ...]
    known: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    attempts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One line of a stage's table; ``seconds`` and ``cpu_seconds`` are the stage's own share of its batch.

    ``open_seconds`` and ``bytes_read`` are charged to the first stage that an opening served, so sums over
    stages count every decode once. ``peak_memory`` is the guarded process's high-water mark in bytes.
    """

    key: str
    status: str  # value, not_applicable, failed, skipped
    attempts: int
    reason: str | None = None
    error_kind: str | None = None
    error: str | None = None
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    open_seconds: float = 0.0
    peak_memory: int = 0
    bytes_read: int = 0
    values: Mapping[str, Any] = field(default_factory=dict)


ROW_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("attempts", pa.int32(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("error_kind", pa.string()),
        pa.field("error", pa.string()),
        pa.field("seconds", pa.float64()),
        pa.field("cpu_seconds", pa.float64()),
        pa.field("open_seconds", pa.float64()),
        pa.field("peak_memory", pa.int64()),
        pa.field("bytes_read", pa.int64()),
    ]
)

ITEM_TYPES: Mapping[str, type] = {"clip": Clip, "source": Source}


def load_object(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def to_work(table: pa.Table, item_type: str) -> list[WorkItem]:
    """Rows of a work table (item columns, ``todo``, ``known``, ``attempts``) as objects."""
    items: Iterable[Any] = from_table(table, ITEM_TYPES[item_type])
    extra = table.select(["todo", "known", "attempts"]).to_pylist()
    return [
        WorkItem(item, tuple(row["todo"]), json.loads(row["known"]), json.loads(row["attempts"]))
        for item, row in zip(items, extra, strict=True)
    ]


def part_name(work: Sequence[WorkItem], gates: Sequence[Gate]) -> str:
    """Name of the file that a batch's rows go to: the same batch tried again replaces its own file."""
    identity = sorted((w.item.key, json.dumps(w.attempts, sort_keys=True)) for w in work)
    return f"part-{stable_hash(identity, [gate.model_dump_json() for gate in gates])}.parquet"


OpenItem = Callable[[Any, frozenset[str]], Any]
