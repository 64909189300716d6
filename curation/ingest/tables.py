"""List files and tables of sources, each read in batches: which columns mean what, and the rest as provenance."""

from __future__ import annotations

import csv
import json
import posixpath
from collections.abc import Iterator
from typing import Any

import duckdb
import fsspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from kit.config import Strict
from kit.errors import UserError

DELIMITED = {".csv": ",", ".tsv": "\t"}
LISTINGS = (".txt", *DELIMITED, ".parquet", ".jsonl")
BATCH_ROWS = 1 << 17


class ListingError(UserError):
    """The listing cannot be used. The message names the file, what is wrong and what to change."""


class Columns(Strict):
    """Which columns of a table mean what; every other column is kept verbatim in the provenance.

    Attributes:
        uri: path or URL of the media file.
        strip: a prefix to take off each value of ``uri``, for tables that name files below another folder.
        suffix: an ending to put to each value of ``uri`` that lacks it, for tables that name files without extension.
        licence: licence of the row, over the listing's default.
        start: where the listing holds cuts made by others, where each begins, in seconds or ``H:MM:SS.mmm``.
        end: where each of those cuts ends.
    """

    uri: str = "uri"
    strip: str = ""
    suffix: str = ""
    licence: str | None = None
    start: str | None = None
    end: str | None = None

    def model_post_init(self, context: Any) -> None:
        if (self.start is None) != (self.end is None):
            raise ValueError("columns.start and columns.end come together")

    @property
    def named(self) -> dict[str, str]:
        return {role: name for role in ("uri", "licence", "start", "end") if (name := getattr(self, role)) is not None}


def read_table(fs: fsspec.AbstractFileSystem, path: str, name: str, columns: Columns) -> Iterator[pa.Table]:
    """The rows of a list file or table in batches: the mapped columns under their roles, as they stand, and
    ``provenance``, one JSON object a row with the others.

    Raises:
        ListingError: an unreadable table or a missing column; it calls the file ``name``.
    """
    try:
        yield from _read(fs, path, name, columns)
    except (pa.ArrowInvalid, UnicodeError, csv.Error) as error:
        raise ListingError(f"{name}: {error}") from error


def _read(fs: fsspec.AbstractFileSystem, path: str, name: str, columns: Columns) -> Iterator[pa.Table]:
    suffix = posixpath.splitext(path)[1].lower()
    if suffix == ".txt":
        with fs.open(path, "r", encoding="utf-8-sig", newline="\n") as stream:
            lines = [line for raw in stream if (line := raw.rstrip("\r\n"))]
        yield pa.table({"uri": pa.array(lines, pa.string())})
    elif suffix == ".jsonl":
        with fs.open(path, "r", encoding="utf-8-sig") as stream:
            yield from _read_jsonl(stream, name, columns)
    elif suffix == ".parquet":
        with fs.open(path, "rb") as stream:
            file = pq.ParquetFile(stream)
            _require(columns, file.schema_arrow.names, name)
            for batch in file.iter_batches(BATCH_ROWS, use_threads=False):
                yield _mapped(pa.Table.from_batches([batch]), columns)
    else:
        with fs.open(path, "r", encoding="utf-8-sig", newline="") as stream:
            header = next(csv.reader(stream, delimiter=DELIMITED[suffix]), [])
        _require(columns, header, name)
        # A repeated or empty heading cannot be addressed: it becomes a name of its own and, when empty, is dropped.
        names = [f"{title}#{index}" if title in header[:index] else title for index, title in enumerate(header)]
        with fs.open(path, "rb") as stream:
            reader = pa.csv.open_csv(
                stream,
                pa.csv.ReadOptions(use_threads=False, column_names=names, skip_rows_after_names=1),
                pa.csv.ParseOptions(delimiter=DELIMITED[suffix], newlines_in_values=True),
                # Every value stays the text that it was: "007" is not 7.
                pa.csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()),
                    strings_can_be_null=False,
                    include_columns=[name for name, title in zip(names, header) if title],
                ),
            )
            for batch in reader:
                yield _mapped(pa.Table.from_batches([batch]), columns)


def _require(columns: Columns, present: list[str], name: str) -> None:
    for role, column in columns.named.items():
        if column not in present:
            raise ListingError(
                f"{name}: no column {column!r} (columns.{role}); it has {', '.join(map(repr, present)) or 'none'}"
            )


def _read_jsonl(stream: Any, name: str, columns: Columns) -> Iterator[pa.Table]:
    roles = columns.named
    batch: list[dict[str, Any]] = []
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ListingError(f"{name}, line {number}: {error}") from None
        if not isinstance(row, dict):
            raise ListingError(f"{name}, line {number}: a JSON object is needed, this is {line.strip()[:60]!r}")
        if number == 1:
            _require(columns, list(row), f"{name}, line {number}")
        mapped = {role: row.pop(column, None) for role, column in roles.items()}
        mapped = {role: value if value is None else str(value) for role, value in mapped.items()}
        batch.append(mapped | {"provenance": json.dumps(row, ensure_ascii=False)})
        if len(batch) == BATCH_ROWS:
            yield pa.Table.from_pylist(batch)
            batch = []
    if batch:
        yield pa.Table.from_pylist(batch)


def _mapped(table: pa.Table, columns: Columns) -> pa.Table:
    roles = columns.named
    mapped = {role: table[name] for role, name in roles.items()}
    rest = [field for field in table.schema if field.name not in roles.values()]
    if rest:
        mapped["provenance"] = _json_rows(table.select([field.name for field in rest]))
    return pa.table(mapped)


def _json_rows(table: pa.Table) -> pa.ChunkedArray:
    """One JSON object a row, vectorised; a number that JSON cannot hold becomes null."""
    members = []
    for field in table.schema:
        value = '"' + field.name.replace('"', '""') + '"'
        if pa.types.is_floating(field.type):
            value = f"CASE WHEN isfinite({value}) THEN {value} END"
        members.append(f"'{field.name.replace(chr(39), chr(39) * 2)}': {value}")
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("rows", table)
        query = f"SELECT to_json({{{', '.join(members)}}})::VARCHAR AS provenance FROM rows"
        return connection.sql(query).to_arrow_table()["provenance"]


def seconds(values: pa.ChunkedArray, name: str, first: int) -> pa.ChunkedArray | pa.Array:
    """Seconds as float64 from numbers or ``[[H:]MM:]SS.mmm`` texts; null stays null."""
    if not pa.types.is_string(values.type) and not pa.types.is_large_string(values.type):
        return values.cast(pa.float64())
    parsed = []
    for row, text in enumerate(values.to_pylist()):
        try:
            parts = [float(part) for part in text.split(":")] if text else []
        except ValueError:
            raise ListingError(f"{name}: row {first + row}: {text!r} is no time in seconds or H:MM:SS") from None
        parsed.append(sum(part * 60**power for power, part in enumerate(reversed(parts))) if parts else None)
    return pa.array(parsed, pa.float64())
