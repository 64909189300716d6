"""Checks a release against its manifest: every file, every clip, and that the tables agree with one another."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc

from unitalking_data.manifest import MANIFEST, SUCCESS, Manifest, ManifestError, ShardEntry, read_manifest
from unitalking_data.schema import check_version
from unitalking_data.shard import ShardError, walk
from unitalking_data.storage import Store

BLOCK_BYTES = 1 << 22
# What pyarrow raises on damaged Parquet depends on where the damage is.
UNREADABLE = (OSError, ValueError, KeyError, NotImplementedError, pa.ArrowException)


@dataclass
class Verification:
    """What was checked, and what is wrong.

    Attributes:
        version: of the release.
        clips, files, bytes: how many were checked, latents included in files and bytes.
        problems: one line each; empty for a sound release.
    """

    version: str = ""
    clips: int = 0
    files: int = 0
    bytes: int = 0
    problems: list[str] = field(default_factory=list)


def verify(root: str, *, workers: int = 1, progress: Callable[[str], None] = lambda line: None) -> Verification:
    """Read every byte of a release and of the latents under it, and check them.

    - Every file has its size and sha256, and no shard or table is there that the manifest does not name.
    - Each shard holds the clips of the index in their order, each with the members that its row promises.
    - Tables agree with one another; no clip is there twice; no source and no speaker is in two splits.

    Args:
        root: folder of the release, local or fsspec URL.
        workers: threads, each of which reads one shard at a time.
        progress: called with a line for every shard that has been read.

    Raises:
        ManifestError: there is no finished release of this schema version.
    """
    store = Store(root)
    manifest = read_manifest(store)
    found = Verification(manifest.version)
    _check_success(store, found)
    known = _verify_tree(store, "", manifest, found, workers, progress)
    for encoder in store.folders("latents"):
        folder = f"latents/{encoder}/"
        try:
            inner = read_manifest(Store(f"{store.root.rstrip('/')}/latents/{encoder}"))
        except ManifestError as error:
            found.problems.append(str(error))
            continue
        if inner.process.get("release") != manifest.build:
            found.problems.append(f"{folder}: of another release than this one")
        known |= _verify_tree(store, folder, inner, found, workers, progress)
    # Other tools may leave files of their own, but a stray shard or table would be read as part of the release.
    strays = [name for name in store.walk() if name.endswith((".tar", ".parquet")) and name not in known]
    found.problems += [f"{name}: not in the manifest" for name in strays]
    return found


def _check_success(store: Store, found: Verification) -> None:
    stated = store.read_bytes(SUCCESS).split()[:1]
    if stated != [hashlib.sha256(store.read_bytes(MANIFEST)).hexdigest().encode()]:
        found.problems.append(
            f"{MANIFEST}: not the one that this release was finished with (it says version {found.version}); was it "
            "changed, or copied from another release?"
        )


def _verify_tree(
    store: Store,
    folder: str,
    manifest: Manifest,
    found: Verification,
    workers: int,
    progress: Callable[[str], None],
) -> set[str]:
    """Check everything that one manifest names; returns the paths of it."""
    found.clips += manifest.clips if not folder else 0
    for entry in manifest.files:
        problem = _check_file(store, folder + entry.path, entry.bytes, entry.sha256)
        found.problems += [problem] if problem else []
        found.bytes += entry.bytes
    index = _indexes(store, folder, manifest, found)
    pool = ThreadPoolExecutor(max(1, workers))
    try:
        jobs = [
            pool.submit(
                _check_shard, store, replace(shard, path=folder + shard.path), index.get(shard.path), shard.part
            )
            for shard in manifest.shards
        ]
        for shard, job in zip(manifest.shards, jobs, strict=True):
            problems = job.result()
            found.problems += problems
            found.bytes += shard.bytes
            progress(f"{folder}{shard.path}: {'; '.join(problems) or 'ok'}")
    finally:
        pool.shutdown(cancel_futures=True)  # on an interrupt, shards that nobody waits for are not read
    found.files += len(manifest.files) + len(manifest.shards)
    if not folder:
        found.problems += _check_tables(store, manifest)
    names = [MANIFEST, SUCCESS, *(file.path for file in manifest.files), *(shard.path for shard in manifest.shards)]
    return {folder + name for name in names}


def _check_file(store: Store, name: str, size: int, sha256: str) -> str:
    """What is wrong with a file; ``""`` if nothing is."""
    if not store.exists(name):
        return f"{name}: missing"
    digest, length = hashlib.sha256(), 0
    with store.open(name) as stream:
        while block := stream.read(BLOCK_BYTES):
            digest.update(block)
            length += len(block)
    if length != size:
        return f"{name}: {length:,} bytes, the manifest says {size:,}"
    if digest.hexdigest() != sha256:
        return f"{name}: its bytes have changed (sha256 {digest.hexdigest()[:12]}…, the manifest says {sha256[:12]}…)"
    return ""


def _indexes(store: Store, folder: str, manifest: Manifest, found: Verification) -> dict[str, list[dict]]:
    """Rows of the index by path of the shard."""
    rows: dict[str, list[dict]] = {}
    for split, totals in manifest.splits.items():
        name = folder + totals.index
        try:
            table = store.read_table([name])
            check_version(table.schema, name)
        except UNREADABLE as error:
            found.problems.append(f"{name}: cannot be read ({error})")
            continue
        by_number = {shard.number: shard.path for shard in manifest.shards if shard.split == split}
        for row in table.to_pylist():
            if row["shard"] not in by_number:
                found.problems.append(f"{name}: clip {row['key']} is in shard {row['shard']}, which is not there")
                continue
            rows.setdefault(by_number[row["shard"]], []).append(row)
        if len(table) != totals.clips:
            found.problems.append(f"{name}: {len(table)} clips, the manifest says {totals.clips}")
    return rows


def _check_shard(store: Store, shard: ShardEntry, rows: Sequence[Mapping] | None, part: str) -> list[str]:
    """Problems of one shard, read clip by clip so that the message can name the clip."""
    if rows is None:
        return [f"{shard.path}: no clips of it in the index"]
    if not store.exists(shard.path):
        return [f"{shard.path}: missing"]
    problems: list[str] = []
    digest, length = hashlib.sha256(), 0
    members: dict[str, set[str]] = {}
    with store.open(shard.path) as stream:
        for row in rows:
            if row["offset"] != length:
                return [*problems, f"{shard.path}: clip {row['key']} does not begin where the one before ends"]
            run = stream.read(row["size"])
            digest.update(run)
            length += len(run)
            if len(run) < row["size"]:
                return [*problems, f"{shard.path}: cut short at byte {length:,}, in clip {row['key']}"]
            try:
                members[row["key"]] = _members(run, row["key"], shard.path)
            except ShardError as error:
                problems.append(str(error))
                continue
            if zlib.crc32(run) != row["crc32"]:
                problems.append(f"{shard.path}: the bytes of clip {row['key']} have changed")
        while block := stream.read(BLOCK_BYTES):
            digest.update(block)
            length += len(block)
    if length != shard.bytes:
        problems.append(f"{shard.path}: {length:,} bytes, the manifest says {shard.bytes:,}")
    elif digest.hexdigest() != shard.sha256 and not problems:
        problems.append(f"{shard.path}: its bytes have changed outside of the clips")
    if len(rows) != shard.clips:
        problems.append(f"{shard.path}: {len(rows)} clips in the index, the manifest says {shard.clips}")
    if part:
        problems += _check_members(store, shard, part, members)
    return problems


def _members(run: bytes, key: str, name: str) -> set[str]:
    extensions = set()
    for found, extension, _, _ in walk(run, name):
        if found != key:
            raise ShardError(f"{name}: member {found}.{extension} stands in the place of clip {key}")
        extensions.add(extension)
    return extensions


def _check_members(store: Store, shard: ShardEntry, part: str, members: Mapping[str, set[str]]) -> list[str]:
    """Problems of clips that lack a member which their row promises."""
    refs = part.replace("meta/", "refs/", 1)
    try:
        table = store.read_table([part], ["key", "split", "audio_rate"])
        told = store.read_table([refs], ["key", "take"]).to_pylist() if store.exists(refs) else []
    except UNREADABLE as error:
        return [f"{part} or its part of refs/ cannot be read ({error})"]
    takes: dict[str, set[str]] = {}
    for row in told:
        takes.setdefault(row["key"], set()).add(f"ref{row['take']}.wav")
    problems = []
    rows = table.to_pylist()
    if [row["key"] for row in rows] != list(members) and len(members) == shard.clips:
        problems.append(f"{part}: its rows are not the clips of {shard.path} in their order")
    for row in rows:
        wanted = {"mp4", "json"} | ({"wav"} if row["audio_rate"] else set()) | takes.get(row["key"], set())
        if missing := sorted(wanted - members.get(row["key"], wanted)):
            problems.append(f"{shard.path}: clip {row['key']} has no {', '.join(missing)}")
        if row["split"] != shard.split:
            problems.append(f"{part}: clip {row['key']} is of split {row['split']}, its shard of {shard.split}")
    return problems


def _check_tables(store: Store, manifest: Manifest) -> list[str]:
    """Problems that only all tables together show: clips, sources and speakers in two places."""
    try:
        parts = [shard.part for shard in manifest.shards]
        meta = store.read_table(parts, ["key", "split", "source", "speaker"])
        names = [entry.path for entry in manifest.files if entry.path.startswith("rejected/")]
        rejected = store.read_table(names, ["key"])["key"] if names else pa.chunked_array([[]], pa.string())
    except UNREADABLE as error:
        return [f"meta/ or rejected/ cannot be read ({error})"]
    problems = list(_twice(meta["key"]))
    for column in ("source", "speaker"):
        pairs = meta.filter(pc.is_valid(meta[column])).group_by([column, "split"]).aggregate([])
        for value in _repeated(pairs[column]):
            problems.append(f"{column} {value} is in more than one split")
    published = pc.is_in(rejected, value_set=meta["key"].combine_chunks())
    problems += [f"clip {key} is published and rejected" for key in rejected.filter(published).to_pylist()]
    return problems


def _twice(keys: pa.ChunkedArray) -> Iterator[str]:
    for key in _repeated(keys):
        yield f"clip {key} stands twice"


def _repeated(values: pa.ChunkedArray) -> list[str]:
    counts = values.value_counts()
    return sorted(row["values"] for row in counts.filter(pc.greater(counts.field("counts"), 1)).to_pylist())
