"""Build one shard of a release: read its clips' rows from the tables, cut its clips out of their sources."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import duckdb
import pyarrow as pa

from curation.select import load_scores
from engine.isolate import isolated
from engine.ledger import Ledger, open_database
from engine.specs import StageSpec
from media.clip import MediaError
from media.cut import CutClip, VideoFormat
from media.open import is_url
from pipelines.release.composition import ATOMS
from pipelines.release.cut import cut_row
from unitalking_data.layout import ShardLayout
from unitalking_data.schema import ATOM_FIELDS, REF_FIELDS, scores_field
from unitalking_data.storage import Store
from unitalking_data.writer import ClipFiles, RejectedClip, ReleaseWriter

REF_COLUMNS = tuple(field.name for field in REF_FIELDS)
# One guarded process cuts so many before their bytes are taken over: some 50 MB.
CLIPS_AT_ONCE = 32


@dataclass(frozen=True)
class ShardJob:
    """The settings that all shards share.

    Attributes:
        ledger: of the curation run.
        specs: the stages whose scores are published; their fingerprints are worked out already.
        captions, references: folders of tables, or None.
    """

    writer: ReleaseWriter
    ledger: Ledger
    specs: tuple[StageSpec, ...]
    video: VideoFormat
    audio_rate: int | None
    time_limit_s: float
    captions: str | None = None
    references: str | None = None


def build_shard(job: ShardJob, shard: ShardLayout, clips: pa.Table) -> int:
    """Write a shard; gives how many clips were planned for it.

    Args:
        clips: rows of ``engine.items.Clip`` of the shard, with ``speaker`` and ``audio_shift_s``.

    Raises:
        OSError: the storage failed; what was finished stays.
    """
    rows = meta_rows(job, clips)
    refs = _references(job, shard.keys)
    audio = {(row["key"], row["take"]): row["audio"] for row in refs.to_pylist()} if refs is not None else {}
    by_key = {row["key"]: row for row in clips.to_pylist()}
    published = refs.select([name for name in REF_COLUMNS if name in refs.column_names]) if refs is not None else None
    job.writer.write(shard, rows, partial(_cut_clips, job, by_key, audio), published)
    return len(clips)


def score_fields(specs: Sequence[StageSpec]) -> list[pa.Field]:
    """The struct columns of ``meta/``."""
    return [scores_field(spec.name, spec.cls.values) for spec in specs]


def meta_rows(job: ShardJob, clips: pa.Table) -> pa.Table:
    """Columns of ``meta/`` that are known before the clip is cut."""
    plain = clips.drop_columns(["speaker", "audio_shift_s"])
    scores = load_scores(job.ledger, plain, job.specs)
    place = {key: number for number, key in enumerate(scores["key"].to_pylist())}
    scores = scores.take([place[key] for key in clips["key"].to_pylist()])
    columns = {
        "key": clips["key"],
        "source": clips["content"],
        "source_uri": pa.array([published_uri(uri) for uri in clips["source_uri"].to_pylist()], pa.string()),
        **{name: clips[name] for name in ("start_s", "end_s", "speaker", "licence", "provenance")},
        "verdict": pa.array(["kept"] * len(clips), pa.string()),
    }
    for spec, column in zip(job.specs, score_fields(job.specs), strict=True):
        values = [scores[f"{spec.name}.{name}"].combine_chunks() for name in ("status", "detail")]
        values.append(pa.array([spec.fingerprint] * len(clips), pa.string()))
        values += [scores[f"{spec.name}.{value.name}"].combine_chunks() for value in spec.cls.values]
        columns[spec.name] = pa.StructArray.from_arrays(values, fields=list(column.type))
    table = pa.table(columns)
    if job.captions:
        with open_database() as connection:
            parquet_view(connection, job.captions, "captions")
            connection.register("clips", clips.select(["key"]))
            query = "SELECT captions.* FROM captions SEMI JOIN clips USING (key)"
            found = connection.sql(query).to_arrow_table()
        found = found.select(["key", *(name for name in ATOMS if name in found.column_names)])
        rows = {row["key"]: row for row in found.to_pylist()}
        for field in ATOM_FIELDS:
            if field.name in found.column_names:
                atoms = [rows.get(key, {}).get(field.name) for key in clips["key"].to_pylist()]
                table = table.append_column(field.name, pa.array(atoms, field.type))
    return table


def published_uri(uri: str) -> str:
    """A URL as it is; of a local path the name alone, for where it lay on one machine is of no use to others."""
    return uri if is_url(uri) and not uri.startswith("file:") else uri.rstrip("/").rsplit("/", 1)[-1]


def parquet_view(connection: duckdb.DuckDBPyConnection, folder: str, name: str) -> None:
    """Create the view ``name`` over all Parquet files of a folder, local or fsspec.

    Raises:
        FileNotFoundError: there are none.
    """
    store = Store(folder)
    files = [store.path(file) for file in store.files("")]
    if not files:
        raise FileNotFoundError(f"no Parquet files in {folder}")
    if not store.local:
        if not connection.filesystem_is_registered(store.protocol):
            connection.register_filesystem(store.fs)
        files = [f"{store.protocol}://{file}" for file in files]
    listed = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
    connection.execute(f'CREATE VIEW "{name}" AS SELECT * FROM read_parquet([{listed}], union_by_name = true)')


def _references(job: ShardJob, keys: Sequence[str]) -> pa.Table | None:
    if not job.references:
        return None
    with open_database() as connection:
        parquet_view(connection, job.references, "refs")
        connection.register("clips", pa.table({"key": keys}))
        return connection.sql("SELECT refs.* FROM refs SEMI JOIN clips USING (key) ORDER BY key, take").to_arrow_table()


def _cut_clips(
    job: ShardJob, rows: Mapping[str, Mapping[str, Any]], audio: Mapping[tuple[str, int], bytes], keys: Sequence[str]
) -> Iterator[ClipFiles | RejectedClip]:
    """Cut the clips in a guarded process: a clip that crashes its decoder or never ends is rejected, and no other."""
    cut = partial(cut_row, job.video, job.audio_rate)
    for start in range(0, len(keys), CLIPS_AT_ONCE):
        some = keys[start : start + CLIPS_AT_ONCE]
        results = isolated(cut, [rows[key] for key in some], time_limit_s=job.time_limit_s, workers=1)
        for key, result in zip(some, results, strict=True):
            if isinstance(result, OSError) and not isinstance(result, TimeoutError):
                raise result
            if isinstance(result, Exception):
                message = str(result).replace(rows[key]["source_uri"], published_uri(rows[key]["source_uri"]))
                yield RejectedClip(
                    message if isinstance(result, MediaError | TimeoutError | RuntimeError) else repr(result)
                )
            else:
                takes = {f"ref{take}.wav": data for (owner, take), data in audio.items() if owner == key}
                yield _clip_files(result, rows[key], takes)


def _clip_files(clip: CutClip, row: Mapping[str, Any], takes: Mapping[str, bytes]) -> ClipFiles:
    wav = {} if clip.wav is None else {"wav": clip.wav}
    media = {
        "duration_s": clip.frames / clip.fps,
        "frames": clip.frames,
        "fps": clip.fps,
        "width": clip.width,
        "height": clip.height,
        "audio_rate": clip.audio_rate,
        "audio_channels": clip.audio_channels,
        "video_cut": "encode" if clip.encoded_because else "copy",
        "video_cut_reason": clip.encoded_because or None,
        "audio_shift_s": row["audio_shift_s"],
    }
    return ClipFiles({"mp4": clip.mp4, **wav, **takes}, media)


def speaker_of(provenance: str, column: str) -> str | None:
    """A column of the listing out of a clip's provenance."""
    value = json.loads(provenance).get(column)
    return None if value in (None, "") else str(value)
