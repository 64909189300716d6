"""Scores as append-only Parquet tables: what is done is what is in them.

One folder a stage and fingerprint, ``scores/<stage>/<version-hash>/part-*.parquet``. A batch's file appears whole or
not at all and is named by its batch, so a batch that is run again replaces its own file. A failure tried again
leaves two rows; the reader takes the one with more attempts. :meth:`Ledger.compact` makes that physical.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Sequence
from dataclasses import asdict

import duckdb
import pyarrow as pa

from engine.items import stable_hash
from engine.specs import ROW_SCHEMA, Row, StageSpec
from engine.stage import FAILURE_KINDS
from unitalking_data.storage import Store

STATUSES = ("value", "not_applicable", "failed", "skipped")

_COMPACT_ROWS = 500_000
_MEMORY = "2500MB"  # what a query may hold; beyond it, DuckDB spills to the temporary folder


def open_database() -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB that stays within bounds and prints nothing."""
    config = {"memory_limit": _MEMORY, "temp_directory": tempfile.gettempdir(), "preserve_insertion_order": False}
    connection = duckdb.connect(config=config)
    connection.execute("SET enable_progress_bar = false")
    return connection


def _number_of(column: str, names: Sequence[str]) -> str:
    cases = " ".join(f"WHEN '{name}' THEN {number}" for number, name in enumerate(names))
    return f"CASE {column} {cases} ELSE 7 END"


def _name_of(number: str, names: Sequence[str]) -> str:
    cases = " ".join(f"WHEN {index} THEN '{name}'" for index, name in enumerate(names))
    return f"CASE {number} {cases} END"


# Attempts, status and kind of failure in one number, whose maximum is the latest attempt's.
_STATE = f"(attempts * 64 + {_number_of('status', STATUSES)} * 8 + {_number_of('error_kind', FAILURE_KINDS)})"


def row_schema(spec: StageSpec) -> pa.Schema:
    """The table's columns: what every stage records, then what this one measures."""
    return pa.schema([*ROW_SCHEMA, *spec.cls.values])


class Ledger:
    """The score tables under one store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def folder(self, spec: StageSpec) -> str:
        return f"scores/{spec.name}/{spec.fingerprint}"

    def append(self, spec: StageSpec, part: str, rows: Sequence[Row]) -> None:
        names = spec.cls.values.names
        records = []
        for row in sorted(rows, key=lambda row: row.key):
            record = asdict(row)
            values = record.pop("values")
            records.append({**record, **{name: values.get(name) for name in names}})
        self.store.write_table(f"{self.folder(spec)}/{part}", pa.Table.from_pylist(records, schema=row_schema(spec)))

    def recorded(self, spec: StageSpec, part: str) -> list[Row] | None:
        """The rows that this very batch wrote before, ``None`` if it did not."""
        name = f"{self.folder(spec)}/{part}"
        if not self.store.exists(name):
            return None
        fields = ROW_SCHEMA.names
        records = self.store.read_table([name]).to_pylist()
        return [
            Row(**{f: record.pop(f) for f in fields}, values={k: v for k, v in record.items() if v is not None})
            for record in records
        ]

    def view(self, connection: duckdb.DuckDBPyConnection, spec: StageSpec, name: str) -> None:
        """Create the view ``name``: one row an item, the latest attempt."""
        source, files = self._source(connection, spec)
        latest = "QUALIFY row_number() OVER (PARTITION BY key ORDER BY attempts DESC) = 1" if files > 1 else ""
        connection.execute(f'CREATE OR REPLACE VIEW "{name}" AS SELECT * FROM {source} {latest}')

    def latest(
        self, connection: duckdb.DuckDBPyConnection, specs: Sequence[StageSpec], scores: Collection[str], name: str
    ) -> None:
        """Create the table ``name``: ``key``, and of every stage ``<stage>.status``, ``.attempts``, ``.error_kind``
        and those numeric columns that ``scores`` names as ``stage.column``, as doubles; latest attempts only.

        One aggregation over all stages' rows: at millions of items it takes a fraction of the time and memory of
        one window and one join a stage.
        """
        wanted = sorted(scores)
        pieces = []
        for number, spec in enumerate(specs):
            source, _ = self._source(connection, spec)
            mine = {score: f'"{score.partition(".")[2]}"' for score in wanted if score.partition(".")[0] == spec.name}
            values = "".join(f", CAST({mine.get(score, 'NULL')} AS DOUBLE) AS v{i}" for i, score in enumerate(wanted))
            pieces.append(f"SELECT {number}::UTINYINT AS stage, key, {_STATE} AS state{values} FROM {source}")
        outputs = []
        for number, spec in enumerate(specs):
            state = f"max(state) FILTER (WHERE stage = {number})"
            outputs += [
                f'{_name_of(f"{state} // 8 % 8", STATUSES)} AS "{spec.name}.status"',
                f'{state} // 64 AS "{spec.name}.attempts"',
                f'{_name_of(f"{state} % 8", FAILURE_KINDS)} AS "{spec.name}.error_kind"',
            ]
        # Only the row of the last attempt can hold a value: what it superseded had failed or was skipped.
        outputs += [f'max(v{i}) AS "{score}"' for i, score in enumerate(wanted)]
        rows = " UNION ALL ".join(pieces)
        connection.execute(f'CREATE TEMP TABLE "{name}" AS SELECT key, {", ".join(outputs)} FROM ({rows}) GROUP BY key')

    def _source(self, connection: duckdb.DuckDBPyConnection, spec: StageSpec) -> tuple[str, int]:
        """What to select a stage's rows from, and how many files that is.

        Local files are read by DuckDB itself; others through the store's fsspec file system.
        """
        files = [self.store.path(file) for file in self.store.files(self.folder(spec))]
        if not files:
            connection.register(f"{spec.name}_without_rows", row_schema(spec).empty_table())
            return f'"{spec.name}_without_rows"', 0
        if not self.store.local:
            protocol = self.store.protocol
            if not connection.filesystem_is_registered(protocol):
                connection.register_filesystem(self.store.fs)
            files = [f"{protocol}://{file}" for file in files]
        listed = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
        return f"read_parquet([{listed}], union_by_name = true)", len(files)

    def read(self, spec: StageSpec) -> pa.Table:
        """One row an item, the latest attempt, sorted by key."""
        with open_database() as connection:
            self.view(connection, spec, "scores")
            table = connection.sql("SELECT * FROM scores ORDER BY key").to_arrow_table()
        return table.select(row_schema(spec).names).cast(row_schema(spec))

    def compact(self, spec: StageSpec) -> None:
        """Merge the parts into few files without superseded rows. Safe to kill: a rest is merged next time."""
        folder = self.folder(spec)
        parts = self.store.files(folder)
        if len(parts) < 2:
            return
        table = self.read(spec)
        written = []
        for start in range(0, len(table), _COMPACT_ROWS):
            piece = table.slice(start, _COMPACT_ROWS)
            name = f"{folder}/part-{stable_hash('compact', *parts, start)}.parquet"
            self.store.write_table(name, piece)
            written.append(name)
        self.store.delete([part for part in parts if part not in written])
