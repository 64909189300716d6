"""Scores as append-only Parquet tables: what is done is what stands in them.

One folder a stage and fingerprint, ``scores/<stage>/<version-hash>/part-*.parquet``. A batch's file appears whole or
not at all and is named by its batch, so a batch that is run again replaces its own file. A failure tried again
leaves two rows; the reader takes the one with more attempts. :meth:`Ledger.compact` makes that physical.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import duckdb
import pyarrow as pa

from corpus.clip import stable_hash
from corpus.storage import Store
from engine.specs import ROW_SCHEMA, Row, StageSpec

_COMPACT_ROWS = 500_000


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
        """Create the view ``name``: one row an item, the latest attempt.

        Local files are read by DuckDB itself; others through the store's fsspec file system.
        """
        files = [self.store.path(file) for file in self.store.files(self.folder(spec))]
        if not files:
            connection.register(f"{name}_empty", row_schema(spec).empty_table())
            connection.execute(f'CREATE OR REPLACE VIEW "{name}" AS SELECT * FROM "{name}_empty"')
            return
        if not self.store._local:
            protocol = self.store.fs.protocol if isinstance(self.store.fs.protocol, str) else self.store.fs.protocol[0]
            if not connection.filesystem_is_registered(protocol):
                connection.register_filesystem(self.store.fs)
            files = [f"{protocol}://{file}" for file in files]
        listed = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
        latest = "QUALIFY row_number() OVER (PARTITION BY key ORDER BY attempts DESC) = 1" if len(files) > 1 else ""
        connection.execute(
            f'CREATE OR REPLACE VIEW "{name}" AS SELECT * FROM read_parquet([{listed}], union_by_name = true) {latest}'
        )

    def read(self, spec: StageSpec) -> pa.Table:
        """One row an item, the latest attempt, sorted by key."""
        with duckdb.connect() as connection:
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
