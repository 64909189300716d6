"""Build a release: lay out its shards, write each of them (in any process, in any order), finish. ::

    writer = ReleaseWriter("release/v1", meta_schema())
    for shard in writer.begin("v1", clips, splits=["train", "val"]):
        writer.write(shard, rows, make)  # rows: a table with one row for each of shard.keys
    manifest = writer.finish()

A build that was killed is continued by the same calls: ``begin`` gives the shards that are left. What is written
depends on the arguments alone, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from unitalking_data.layout import Previous, ShardLayout, build_hash, lay_out_shards, shards_of
from unitalking_data.manifest import SUCCESS, FileEntry, Manifest, ShardEntry, SplitTotals, read_manifest
from unitalking_data.schema import INDEX_SCHEMA, MEDIA_FIELDS, REFS_SCHEMA, REJECTED_SCHEMA
from unitalking_data.shard import Place, SampleBlocks, ShardFile, pack, read_sample, write_shard
from unitalking_data.storage import Store
from unitalking_data.totals import with_totals

BUILD = "_build"
LAYOUT = f"{BUILD}/layout.parquet"
REJECTED_ROWS = 100_000
INDEX_ROWS = 1 << 20
MEDIA_COLUMNS = tuple(field.name for field in MEDIA_FIELDS)
# What a reader of the tar alone needs beside the media. Scores may change in a later version, so meta/ alone has them.
JSON_COLUMNS = (
    *("key", "split", "source", "start_s", "end_s", "speaker", "licence", "provenance"),
    *MEDIA_COLUMNS,
    *("video_detailed", "video_short", "audio_caption", "fused", "transcript", "language", "transcript_segments"),
)


class ReleaseError(ValueError):
    """The release cannot be built; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class ClipFiles:
    """A clip's files.

    Attributes:
        members: contents by extension: ``mp4``, ``wav``, ``ref0.wav``…; ``KEY.json`` is added.
        media: a value for each of :data:`unitalking_data.schema.MEDIA_FIELDS`.
    """

    members: Mapping[str, bytes]
    media: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RejectedClip:
    """A clip whose files cannot be made; it goes to ``rejected/`` with its reason."""

    reason: str


MakeClips = Callable[[Sequence[str]], Iterator[ClipFiles | RejectedClip]]
# Gets the store, whose tables are all written, and the manifest with all totals; gives the entries of what it wrote.
WriteDocuments = Callable[[Store, Manifest], Iterable[FileEntry]]


def no_documents(store: Store, manifest: Manifest) -> Iterable[FileEntry]:
    """Write none; the release has its shards, tables and manifest alone."""
    return ()


class ReleaseWriter:
    """Writes one release.

    Args:
        root: folder of the release, local or fsspec URL.
        schema: of ``meta/``, from :func:`unitalking_data.schema.meta_schema`.
        previous: root of the release that this one is built over. Its unchanged shards are taken over, by hard link
            or by a copy within the store, and its unchanged clips are not made again.
    """

    def __init__(self, root: str, schema: pa.Schema, previous: str | None = None) -> None:
        self.store, self.schema, self._previous_root = Store(root), schema, previous

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs to write a shard: nothing that is cached."""
        return {"store": self.store, "schema": self.schema, "_previous_root": self._previous_root}

    @cached_property
    def previous(self) -> Previous | None:
        return Previous.open(self._previous_root) if self._previous_root else None

    def begin(
        self,
        version: str,
        clips: pa.Table,
        *,
        splits: Sequence[str],
        shard_clips: int = 500,
        process: Mapping[str, Any] | None = None,
    ) -> list[ShardLayout]:
        """Lay out the release. Returns the shards that are still to be written, none if it is finished already.

        Args:
            version: name of the release.
            clips: ``key``, ``split`` and ``fingerprint``: a hash of all that a clip's files and its row's
                ``JSON_COLUMNS`` are made from.
            splits: all of them, in the order of their shards.
            shard_clips: most clips of a new shard.
            process: how the release was made, for the manifest: values that JSON has, the same on every machine.

        Raises:
            ReleaseError: the folder holds another release, or an unfinished build of other content.
            ValueError: as :func:`unitalking_data.layout.lay_out_shards`.
        """
        layout = lay_out_shards(clips, splits, shard_clips=shard_clips, previous=self.previous)
        build = build_hash(layout, self.previous, {"version": version, **(process or {})})
        if self.store.exists(SUCCESS):
            found = read_manifest(self.store)
            if found.build != build:
                raise ReleaseError(
                    f"{self.store.root} holds release {found.version} already, of other content ({found.clips} clips, "
                    f"{len(layout)} now): give the new one another version, built over this one with previous"
                )
            self._sweep()
            return []
        if not self.store.exists(LAYOUT):
            # a build that was killed before it had its layout has left at most the folder for it
            if {*self.store.folders(""), *self.store.files("", "")} - {BUILD}:
                raise ReleaseError(f"{self.store.root} is not empty and not a release: choose another folder")
            head = {"version": version, "build": build, "splits": list(splits), "process": dict(process or {})}
            self.store.write_table(LAYOUT, layout.replace_schema_metadata({"head": json.dumps(head)}))
        elif (found := self._head["build"]) != build:
            raise ReleaseError(
                f"{self.store.root} holds an unfinished build of other content ({found[:12]}, now {build[:12]}): "
                "finish that one with its own configuration, delete the folder, or choose another version"
            )
        done = set(self.store.files(BUILD))
        return [shard for shard in shards_of(layout, self.previous) if self._record(shard.number) not in done]

    def write(self, shard: ShardLayout, rows: pa.Table, make: MakeClips, refs: pa.Table | None = None) -> None:
        """Write one shard with its parts of ``meta/`` and ``refs/``, whole or not at all.

        Args:
            rows: one row for each clip of the shard: the schema's columns without place and media; a column that is
                missing is null.
            make: makes the files of the given keys, one after another. It is asked for new and changed clips only.
            refs: rows of ``REFS_SCHEMA`` of the shard's clips.

        Raises:
            ReleaseError: a clip has no row.
            OSError: the storage failed. The shard does not exist then, and ``begin`` gives it again.
        """
        number = shard.number
        by_key = {row["key"]: row for row in rows.to_pylist()}
        if missing := [key for key in shard.keys if key not in by_key]:
            raise ReleaseError(f"{shard.path}: no row for the clips {', '.join(missing[:5])} ({len(missing)} in all)")
        media = self._old_media(shard)
        broken: list[dict[str, Any]] = []
        if shard.old and shard.intact:
            written = self._adopt(shard, shard.old)
        else:
            written = write_shard(self.store, shard.path, self._samples(shard, by_key, make, media, broken))
        if not written.places:
            self.store.delete([shard.path])
        published = [
            {**by_key[place.key], **media[place.key], "split": shard.split, "shard": number} for place in written.places
        ]
        files = []
        if published:
            table = pa.Table.from_pylist(published, schema=self.schema)
            files.append(self._table(f"meta/part-{number:06d}.parquet", table))
        if published and refs is not None and len(refs):
            files.append(self._table(f"refs/part-{number:06d}.parquet", _refs(refs, written.places)))
        self._write_record(shard, written, media, files, broken)

    def finish(
        self,
        rejected: Iterable[pa.Table] = (),
        *,
        code_revision: str = "",
        documents: WriteDocuments = no_documents,
    ) -> Manifest:
        """Write index, rejected clips, documents and manifest, then ``_SUCCESS``. A finished release stays as it is.

        Args:
            rejected: tables of ``REJECTED_SCHEMA``.
            code_revision: of the program, for the manifest.
            documents: writes what people read (a card, the licences) into the store, and returns an entry for each
                file. It is called once, after all tables are written, with the manifest that lacks only these entries.

        Raises:
            ReleaseError: shards are missing, or no clip of a split could be made.
        """
        if self.store.exists(SUCCESS):
            return read_manifest(self.store)
        head = self._head
        records = self._records()
        shards, files, splits = [], [], {}
        for split in head["splits"]:
            mine = [record for record in records if record.split == split]
            clips = pa.concat_tables([INDEX_SCHEMA.empty_table(), *(record.index for record in mine)])
            if not len(clips):
                raise ReleaseError(f"none of the clips of split {split} could be made; rejected clips say why")
            name = f"media/{split}.index.parquet"
            files.append(self._table(name, clips, rows=INDEX_ROWS))
            entries = [record.shard for record in mine if record.shard]
            shards += entries
            splits[split] = (len(clips), entries, sum(clips["duration_s"].to_pylist()), name)
        files += [entry for record in records for entry in record.files]
        broken = [row for record in records for row in record.broken]
        counts = self._write_rejected(rejected, broken, files)
        manifest = Manifest(
            version=head["version"],
            previous=self.previous.manifest.version if self.previous else "",
            build=head["build"],
            splits={
                split: SplitTotals(clips, len(entries), sum(e.bytes for e in entries), round(seconds, 3), name)
                for split, (clips, entries, seconds, name) in splits.items()
            },
            shards=sorted(shards, key=lambda entry: entry.number),
            files=files,
            rejected=counts,
            process={**head["process"], "code_revision": code_revision},
        )
        manifest = with_totals(self.store, manifest)
        manifest = replace(manifest, files=[*manifest.files, *documents(self.store, manifest)])
        content = manifest.dumps()
        self.store.write_bytes("manifest.json", content)
        self.store.write_bytes(SUCCESS, f"{hashlib.sha256(content).hexdigest()}  manifest.json\n".encode())
        self._sweep()
        return read_manifest(self.store)

    @cached_property
    def _head(self) -> dict[str, Any]:
        with self.store.open(LAYOUT) as stream:
            return json.loads(pq.read_schema(stream).metadata[b"head"])

    def _old_media(self, shard: ShardLayout) -> dict[str, dict[str, Any]]:
        """Media columns of the clips that are taken over, by key."""
        places = shard.old_places()
        if not shard.old or not places:
            return {}
        table = self._old_store.read_table([shard.old.part], ["key", *MEDIA_COLUMNS])
        rows = {row.pop("key"): row for row in table.to_pylist()}
        return {key: rows[key] for key in places}

    @cached_property
    def _old_store(self) -> Store:
        assert self._previous_root, "only a release that is built over another has clips to take over"
        return Store(self._previous_root)

    def _adopt(self, shard: ShardLayout, old: ShardEntry) -> ShardFile:
        self.store.adopt(self._old_store, old.path)
        return ShardFile(old.bytes, old.sha256, tuple(shard.old_places().values()))

    def _samples(
        self,
        shard: ShardLayout,
        rows: Mapping[str, Mapping[str, Any]],
        make: MakeClips,
        media: dict[str, dict[str, Any]],
        broken: list[dict[str, Any]],
    ) -> Iterator[SampleBlocks]:
        """The shard's samples in their order; fills in ``media`` and ``broken``."""
        places = shard.old_places()
        made = iter(make([key for key in shard.keys if key not in places]))
        for key in shard.keys:
            if key in places:
                yield read_sample(self._old_store, shard.path, places[key])
                continue
            clip = next(made)
            if isinstance(clip, RejectedClip):
                names = [name for name in REJECTED_SCHEMA.names if name in rows[key]]
                broken.append({**{n: rows[key][n] for n in names}, "verdict": "broken", "reasons": [clip.reason]})
                continue
            media[key] = {name: clip.media[name] for name in MEDIA_COLUMNS if name in clip.media}
            row = {**rows[key], **media[key], "split": shard.split}
            content = {name: row.get(name) for name in JSON_COLUMNS if row.get(name) is not None}
            text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
            yield pack(key, {**clip.members, "json": text.encode()})

    def _table(self, name: str, table: pa.Table, rows: int | None = None) -> FileEntry:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", row_group_size=rows)
        data = sink.getvalue().to_pybytes()
        self.store.write_bytes(name, data)
        return FileEntry(name, len(data), hashlib.sha256(data).hexdigest(), len(table))

    def _record(self, number: int) -> str:
        return f"{BUILD}/shard-{number:06d}.parquet"

    def _write_record(
        self,
        shard: ShardLayout,
        written: ShardFile,
        media: Mapping[str, Mapping[str, Any]],
        files: Sequence[FileEntry],
        broken: Sequence[Mapping[str, Any]],
    ) -> None:
        """The last file of a shard: with it, the shard is done."""
        fingerprints = dict(zip(shard.keys, shard.clips["fingerprint"].to_pylist(), strict=True))
        rows = [
            {
                **asdict(place),
                "shard": shard.number,
                "fingerprint": fingerprints[place.key],
                **{name: media[place.key][name] for name in ("duration_s", "width", "height")},
            }
            for place in written.places
        ]
        entry = None
        if rows:
            first, last, part = rows[0]["key"], rows[-1]["key"], files[0].path
            entry = asdict(ShardEntry(shard.path, written.bytes, written.sha256, len(rows), first, last, part))
        head = {"split": shard.split, "shard": entry, "files": [asdict(file) for file in files], "broken": broken}
        table = pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)
        metadata = {**table.schema.metadata, b"head": json.dumps(head).encode()}
        self.store.write_table(self._record(shard.number), table.replace_schema_metadata(metadata))

    def _records(self) -> list[_Record]:
        records = []
        numbers = self.store.read_table([LAYOUT], ["shard"])["shard"].unique().to_pylist()
        for number in sorted(numbers):
            name = self._record(number)
            if not self.store.exists(name):
                raise ReleaseError(f"{self.store.root}: shard {number} has not been written yet")
            records.append(_Record.of(self.store.read_table([name])))
        return records

    def _write_rejected(
        self, rejected: Iterable[pa.Table], broken: list[dict[str, Any]], files: list[FileEntry]
    ) -> dict[str, int]:
        tables = [table.select(REJECTED_SCHEMA.names).cast(REJECTED_SCHEMA) for table in rejected]
        tables.append(pa.Table.from_pylist(broken, schema=REJECTED_SCHEMA))
        table = pa.concat_tables(tables).sort_by("key").replace_schema_metadata(REJECTED_SCHEMA.metadata)
        for number, start in enumerate(range(0, len(table), REJECTED_ROWS)):
            files.append(self._table(f"rejected/part-{number:06d}.parquet", table.slice(start, REJECTED_ROWS)))
        counts = table["verdict"].value_counts().to_pylist()
        return {row["values"]: row["counts"] for row in sorted(counts, key=lambda row: row["values"])}

    def _sweep(self) -> None:
        """Remove the build's records and files that killed processes left half-written."""
        if self.store.exists(BUILD):
            self.store.fs.rm(self.store.path(BUILD), recursive=True)
        self.store.remove_partial_files(but="latents")


@dataclass(frozen=True)
class _Record:
    """What a shard's builder left for :meth:`ReleaseWriter.finish`."""

    split: str
    shard: ShardEntry | None
    files: tuple[FileEntry, ...]
    broken: tuple[dict[str, Any], ...]
    index: pa.Table

    @classmethod
    def of(cls, table: pa.Table) -> _Record:
        head = json.loads(table.schema.metadata[b"head"])
        return cls(
            head["split"],
            ShardEntry(**head["shard"]) if head["shard"] else None,
            tuple(FileEntry(**entry) for entry in head["files"]),
            tuple(head["broken"]),
            table.replace_schema_metadata(INDEX_SCHEMA.metadata),
        )


def _refs(refs: pa.Table, places: Sequence[Place]) -> pa.Table:
    """The rows of published clips, in the order of the shard."""
    order = {place.key: number for number, place in enumerate(places)}
    rows = [row for row in refs.to_pylist() if row["key"] in order]
    rows.sort(key=lambda row: (order[row["key"]], row["take"]))
    return pa.Table.from_pylist(rows, schema=REFS_SCHEMA)
