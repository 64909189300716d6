"""What there is to curate: folders, globs, list files and tables become one table of sources.

Nothing is opened here but the listings themselves, so a listing of millions of rows passes in seconds.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import duckdb
import fsspec
import pyarrow as pa
import pyarrow.compute as pc
from fsspec.implementations.local import LocalFileSystem

from curation.ingest.tables import LISTINGS, Columns, ListingError, read_table, seconds
from engine.items import Source, schema_of
from kit.config import Strict

VIDEO_EXTENSIONS = (
    *("3gp", "asf", "avi", "flv", "m2ts", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg"),
    *("mts", "mxf", "ogv", "ts", "vob", "webm", "wmv"),
)


class ListingConfig(Strict):
    """Where the media is.

    Attributes:
        inputs: folders (searched to any depth), globs, media files, list files (``.txt``, one path a line) and
            tables (``.csv``, ``.tsv``, ``.parquet``, ``.jsonl``), local or fsspec URLs.
        columns: the tables' column map.
        root: folder or URL that paths in listings are relative to and may not leave; without it, the folder
            of the listing, which a relative path may not leave.
        licence: for media whose listing gives none; ``""`` is unknown.
        extensions: what counts as media in folders and globs, without dot, in any case.
    """

    inputs: tuple[str, ...]
    columns: Columns = Columns()
    root: str | None = None
    licence: str = ""
    extensions: tuple[str, ...] = VIDEO_EXTENSIONS


def list_sources(config: ListingConfig) -> pa.Table:
    """All sources of ``config`` as rows of :class:`engine.items.Source`, sorted by URI, each URI once.

    Rows of one URI with different segments become one source with those segments; the first row's licence
    counts. The schema's metadata has ``rows`` (as listed) and ``duplicates`` (rows that said nothing new).

    Raises:
        ListingError: a missing file, folder or column, an unreadable table, a path that leaves its root, a
            segment without length, or nothing listed at all.
    """
    listed = [batch for item in config.inputs for batch in _expand(item, config)]
    rows = pa.concat_tables(listed) if listed else _ROWS.empty_table()
    if not rows.num_rows:
        raise ListingError(f"no media found in {', '.join(config.inputs) or 'an empty list of inputs'}")
    return _collapse(rows)


_ROWS = pa.schema([("uri", pa.string()), ("licence", pa.string()), ("start_s", pa.float64()), ("end_s", pa.float64())])
_ROWS = _ROWS.append(pa.field("provenance", pa.string()))

# Strings are kept out of the aggregates: a first row is found by its number, then looked up.
_COLLAPSE = """
WITH numbered AS (SELECT *, row_number() OVER () AS row FROM rows),
whole AS (SELECT min(row) AS row FROM numbered WHERE start_s IS NULL GROUP BY uri),
cut AS (SELECT min(row) AS row FROM numbered WHERE start_s IS NOT NULL GROUP BY uri, start_s, end_s),
whole_rows AS (SELECT uri, licence, provenance, '' AS segments FROM numbered WHERE row IN (FROM whole)),
cut_rows AS (
    SELECT uri, arg_min(licence, row) AS licence, '{}' AS provenance,
        '[' || string_agg(format('[{},{},{}]', start_s, end_s, provenance), ',' ORDER BY start_s, end_s) || ']'
    FROM numbered WHERE row IN (FROM cut) AND uri NOT IN (SELECT uri FROM whole_rows) GROUP BY uri
)
SELECT left(sha256('source' || chr(31) || uri), 32) AS key, *
FROM (FROM whole_rows UNION ALL FROM cut_rows) ORDER BY uri
"""
_DISTINCT = "SELECT count(*) FROM (SELECT DISTINCT uri, start_s, end_s FROM rows)"


def _collapse(rows: pa.Table) -> pa.Table:
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("rows", rows)
        table = connection.sql(_COLLAPSE).to_arrow_table()
        (distinct,) = connection.execute(_DISTINCT).fetchone()
    schema = schema_of(Source)
    counts = {"rows": str(rows.num_rows), "duplicates": str(rows.num_rows - distinct)}
    return table.select(schema.names).cast(schema).replace_schema_metadata(counts)


# --- files -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """A file system and the paths in it, with what makes a path of it a URI again."""

    fs: fsspec.AbstractFileSystem
    path: str

    @classmethod
    def of(cls, uri: str) -> _Place:
        """A local path is taken literally, whatever characters it holds."""
        if "://" not in uri:
            return cls(LocalFileSystem(), posixpath.normpath(Path(uri).expanduser().absolute()))
        try:
            return cls(*fsspec.core.url_to_fs(uri))
        except (ImportError, ValueError) as error:
            raise ListingError(f"{uri}: {error}") from None

    @property
    def local(self) -> bool:
        return isinstance(self.fs, LocalFileSystem)

    def uri(self, path: str) -> str:
        return path if self.local else self.fs.unstrip_protocol(path)


def _expand(item: str, config: ListingConfig) -> Iterator[pa.Table]:
    """The rows of one entry of ``inputs``."""
    place = _Place.of(item)
    try:
        if place.fs.isdir(place.path):
            # On a local disk a folder that may not be read would be passed over without a word.
            strict = {"on_error": "raise"} if place.local else {}
            yield _files(place, place.fs.find(place.path, **strict), config)
        elif place.fs.isfile(place.path):
            if not item.lower().endswith(LISTINGS) and not _is_media(item, config):
                raise ListingError(
                    f"{item}: neither a listing ({', '.join(LISTINGS)}) nor media (listing.extensions: "
                    f"{', '.join(config.extensions)})"
                )
            yield from _files_or_listing(place, place.path, config)
        elif re.search(r"[*?\[]", item):
            matches = sorted(place.fs.glob(place.path))
            if not matches:
                raise ListingError(f"{item}: the pattern matches nothing")
            if item.lower().endswith(LISTINGS):
                for path in matches:
                    yield from _files_or_listing(place, path, config)
            else:
                yield _files(place, matches, config)
        else:
            raise ListingError(f"{item}: no such file or folder")
    except ListingError:
        raise
    except Exception as error:
        # Object stores have error types of their own (no credentials, no such endpoint).
        if place.local and not isinstance(error, OSError):
            raise
        raise ListingError(f"{item}: {type(error).__name__}: {error}") from error


def _is_media(path: str, config: ListingConfig) -> bool:
    return path.lower().endswith(tuple(f".{extension.lower()}" for extension in config.extensions))


def _files(place: _Place, paths: list[str], config: ListingConfig) -> pa.Table:
    uris = [place.uri(path) for path in paths if _is_media(path, config)]
    return _rows(_utf8(uris, place.uri(place.path)), config)


def _utf8(uris: list[str], where: str) -> pa.Array:
    try:
        return pa.array(uris, pa.string())
    except UnicodeEncodeError as error:
        raise ListingError(f"{where}: rename {error.object!r}, its name is not UTF-8") from None


def _rows(uris: pa.Array, config: ListingConfig, **columns: pa.Array) -> pa.Table:
    """A table of ``_ROWS``, the defaults where ``columns`` gives nothing."""
    count = len(uris)
    licence = columns.get("licence")
    filled = {
        "uri": uris,
        "licence": pa.array([config.licence] * count) if licence is None else licence,
        "start_s": columns.get("start", pa.nulls(count)),
        "end_s": columns.get("end", pa.nulls(count)),
        "provenance": columns.get("provenance", pa.array(["{}"] * count, pa.string())),
    }
    return pa.table(filled).cast(_ROWS)


# --- listings --------------------------------------------------------------------------------------------------


def _files_or_listing(place: _Place, path: str, config: ListingConfig) -> Iterator[pa.Table]:
    if not path.lower().endswith(LISTINGS):
        yield _files(place, [path], config)
        return
    name = place.uri(path)
    root = _Place.of(config.root if config.root is not None else name.rpartition("/")[0] or "/")
    first = 1
    for table in read_table(place.fs, path, name, config.columns):
        yield _located(table, name, first, root, config)
        first += table.num_rows


def _located(table: pa.Table, name: str, first: int, root: _Place, config: ListingConfig) -> pa.Table:
    """Raw rows of a listing with their paths resolved; ``first`` is the number of the first row."""
    columns = {role: table[role] for role in table.column_names}
    uris = columns.pop("uri").cast(pa.string()).combine_chunks()
    empty = pc.equal(pc.fill_null(uris, ""), "")
    if (row := pc.index(empty, True).as_py()) >= 0:
        raise ListingError(f"{name}: row {first + row} has no path in column {config.columns.uri!r}")
    uris = _resolve(_trim(uris, config.columns), root, config.root is not None, name)
    if "licence" in columns:
        given = columns["licence"].cast(pa.string())
        columns["licence"] = pc.if_else(pc.equal(pc.fill_null(given, ""), ""), config.licence, given)
    if "start" in columns:
        for role in ("start", "end"):
            columns[role] = seconds(columns[role], name, first)
        wrong = pc.invert(pc.and_(pc.greater_equal(columns["start"], 0), pc.less(columns["start"], columns["end"])))
        if (row := pc.index(pc.fill_null(wrong, True), True).as_py()) >= 0:
            bounds = columns["start"][row].as_py(), columns["end"][row].as_py()
            raise ListingError(f"{name}: row {first + row} has no segment between {bounds[0]} and {bounds[1]} s")
    return _rows(uris, config, **columns)


def _trim(uris: pa.Array, columns: Columns) -> pa.Array:
    if columns.strip:
        uris = pc.replace_substring_regex(uris, f"^{re.escape(columns.strip)}", "")
    if columns.suffix:
        uris = pc.if_else(
            pc.ends_with(uris, columns.suffix), uris, pc.binary_join_element_wise(uris, columns.suffix, "")
        )
    return uris


def _resolve(paths: pa.Array, root: _Place, confined: bool, name: str) -> pa.Array:
    """Absolute URIs: relative paths joined to ``root``, which they never leave; when ``confined``, neither may
    absolute paths and URLs."""
    base = root.uri(root.path).rstrip("/")
    url = pc.match_substring_regex(paths, r"^[A-Za-z][A-Za-z0-9+.-]*://")
    absolute = pc.or_(url, pc.starts_with(paths, "/"))
    joined = pc.if_else(absolute, paths, pc.binary_join_element_wise(base, paths, "/"))
    # Only paths with "." or ".." parts or a file:// need Python; the rest stay in Arrow.
    odd = pc.match_substring_regex(joined, r"/\.{1,2}(/|$)|^file://")
    if pc.any(odd).as_py():
        pairs = zip(joined.to_pylist(), odd.to_pylist())
        joined = pa.array([_normal(path) if is_odd else path for path, is_odd in pairs])
    bound = pc.starts_with(joined, f"{base}/")
    allowed = bound if confined else pc.or_(absolute, bound)
    if (row := pc.index(allowed, False).as_py()) >= 0:
        raise ListingError(f"{name}: the path {paths[row].as_py()!r} leaves the folder {base or '/'}; set listing.root")
    return joined


def _normal(uri: str) -> str:
    """Without "." and ".." parts; a ``file://`` URL as the path that it stands for."""
    if uri.startswith("file://"):
        uri = unquote(urlsplit(uri).path)
    if uri.startswith("/"):
        return posixpath.normpath(uri)
    # "s3://bucket/../other" would leave the bucket: the first part of a URL is not a folder.
    scheme, _, rest = uri.partition("://")
    host, _, key = rest.partition("/")
    return f"{scheme}://{host}/{posixpath.normpath('/' + key).lstrip('/')}"
