"""``python -m train.encode``: turn a release into latents, which training reads in place of its media.

A release's shard becomes a shard of latents, by one of ``workers`` processes on Ray or by this one. What is finished
stays; a job that was killed goes on where it was when it is started again. Latents know the release and the codecs
that they were made from; others are refused.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine.executors import ClusterError, connect
from kit import cli
from kit.cli import Command, ConfigFile, Program
from kit.config import ConfigError, differences, load
from kit.progress import Progress
from kit.weights import ModelUse
from model.codecs.statistics import LatentStatistics
from train.encode_config import EncodeConfig, build_of, origin_of
from train.encode_shard import BUILD, STATISTICS, Encoder, ReleaseReader, encode_shard, measure, record_name
from unitalking_data.index import check_shards, read_index
from unitalking_data.manifest import SUCCESS, FileEntry, Manifest, ShardEntry, SplitTotals, read_manifest
from unitalking_data.schema import INDEX_SCHEMA, REJECTED_SCHEMA
from unitalking_data.storage import Store

ORIGIN = f"{BUILD}/origin.json"
_logger = logging.getLogger("train.encode")


def encode(config: EncodeConfig, report: Callable[[str], None]) -> Manifest:
    """Encode what is not encoded yet; a finished set of the same latents is left alone.

    Raises:
        ConfigError: the folder holds other latents, or another process writes there.
        WeightsError: model files of the codecs are missing; all are named.
        ClusterError: Ray cannot be reached, or a worker of it crashed again and again.
        ManifestError, ShardError, FileNotFoundError: the release is not whole, or latents that were finished are not.
        ValueError: weights or statistics that do not fit; a release none of whose clips can be encoded.
        OSError: the storage failed; what was finished stays.
    """
    release = read_manifest(Store(config.release))
    origin = origin_of(config, release.build, _call(config, fingerprints, config))
    out = Store(config.folder)
    try:
        with out.locked():
            return _encode(config, release, origin, out, report)
    except BlockingIOError:
        raise ConfigError(f"another process writes to {config.folder}: wait for it, or choose another name") from None


def _encode(
    config: EncodeConfig, release: Manifest, origin: dict[str, Any], out: Store, report: Callable[[str], None]
) -> Manifest:
    out.remove_partial_files()
    if out.exists(SUCCESS):
        found = read_manifest(out)
        _refuse_others(config, found.process["origin"], origin)
        for split in found.splits:
            check_shards(out, read_index(out, found, split))
        _clear(out)
        report(f"{config.folder} is finished: {found.clips} clips")
        return found
    if out.exists(ORIGIN):
        _refuse_others(config, out.read_json(ORIGIN), origin)
    elif out.walk():
        raise ConfigError(f"{config.folder} is not empty and holds no latents: choose another name")
    else:
        out.write_json(ORIGIN, origin)
    statistics = _statistics(config, out, report)
    done = set(out.files(BUILD))
    todo = [shard for shard in release.shards if record_name(shard) not in done]
    report(f"{release.clips} clips in {len(release.shards)} shards, {len(todo)} to encode")
    progress = Progress("clips", sum(shard.clips for shard in todo))
    for count in (
        _on_ray(config, statistics, todo) if config.executor.kind == "ray" else _here(config, statistics, todo)
    ):
        progress.add(count)
    if todo:
        progress.finish()
    codecs, models = _call(config, provenance, config, statistics)
    return _finish(out, config, release, origin, codecs, models, report)


def provenance(
    config: EncodeConfig, statistics: Mapping[str, LatentStatistics]
) -> tuple[dict[str, str], list[ModelUse]]:
    """Fingerprints of the finished codecs, and the models behind them."""
    encoder = Encoder(config, statistics)
    return encoder.fingerprints(), encoder.models()


def fingerprints(config: EncodeConfig) -> dict[str, str]:
    """Of the codecs and the text encoder, which it builds, before statistics that are still to be measured."""
    return Encoder(config).fingerprints()


def measured(config: EncodeConfig) -> dict[str, LatentStatistics]:
    return measure(Encoder(config), ReleaseReader(Store(config.release)))


class Worker:
    """What one process does; on Ray an actor, whose codecs stay loaded between shards.

    Args:
        folder: that relative paths are relative to.
    """

    def __init__(self, config: EncodeConfig, statistics: Mapping[str, LatentStatistics], folder: str) -> None:
        _enter(folder)
        self._encoder = Encoder(config, statistics)
        self._release, self._out = ReleaseReader(Store(config.release)), Store(config.folder)

    def encode(self, shard: ShardEntry) -> int:
        return encode_shard(self._encoder, self._release, self._out, shard)


def _here(
    config: EncodeConfig, statistics: Mapping[str, LatentStatistics], shards: Sequence[ShardEntry]
) -> Iterator[int]:
    return map(Worker(config, statistics, str(Path.cwd())).encode, shards)


def _on_ray(
    config: EncodeConfig, statistics: Mapping[str, LatentStatistics], shards: Sequence[ShardEntry]
) -> Iterator[int]:
    """A pool of actors; Ray restarts one that crashed and repeats its shard."""
    import ray
    from ray.util import ActorPool

    connect(config.executor)
    kind = ray.remote(**_needs(config), max_restarts=-1, max_task_retries=3)(Worker)
    count = min(config.workers.max_actors, len(shards))
    actors = [kind.remote(config, statistics, str(Path.cwd())) for _ in range(count)]
    try:
        with _own_errors():
            yield from ActorPool(actors).map_unordered(lambda actor, shard: actor.encode.remote(shard), shards)
    finally:
        for actor in actors:
            ray.kill(actor)


def _call(config: EncodeConfig, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call it where the codecs have their device: in a task on Ray, or here."""
    if config.executor.kind == "local":
        return function(*arguments)
    import ray  # costs a second to import, which the local executor and every --help do without

    connect(config.executor)
    with _own_errors():
        return ray.get(ray.remote(**_needs(config))(_called).remote(str(Path.cwd()), function, arguments))


def _called(folder: str, function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    _enter(folder)
    return function(*arguments)


def _enter(folder: str) -> None:
    """Relative paths are relative to where the job was started, on every node, as :mod:`train.on_ray`'s."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise ConfigError(f"{folder} is not on every node ({error.strerror}): start from a shared one") from None


@contextmanager
def _own_errors() -> Iterator[None]:
    """What was raised in a worker, in place of Ray's wrapping with its traceback."""
    from ray.exceptions import ActorDiedError, RayError, RayTaskError

    try:
        yield
    except RayTaskError as error:
        raise error.cause from None
    except ActorDiedError as error:  # of an __init__ that failed, too
        raise ClusterError(f"a worker crashed: {str(error).strip().splitlines()[-1]}") from None
    except RayError as error:
        raise ClusterError(f"Ray failed: {error}") from None


def _needs(config: EncodeConfig) -> dict[str, float | None]:
    return {"num_cpus": config.workers.cpus, "num_gpus": config.workers.gpus or None}


def _refuse_others(config: EncodeConfig, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    if different := differences(theirs, ours):
        raise ConfigError(
            f"{config.folder} holds other latents ({'; '.join(different)}): choose another name, or delete the folder"
        )


def _statistics(config: EncodeConfig, out: Store, report: Callable[[str], None]) -> dict[str, LatentStatistics]:
    """Measured once and stored; a job that goes on takes the stored ones."""
    wanted = [stream for stream in STATISTICS if getattr(config.statistics, stream)]
    if not all(out.exists(STATISTICS[stream]) for stream in wanted):
        report(f"measuring the latents of {config.statistics.clips} clips")
        for stream, found in _call(config, measured, config).items():
            out.write_bytes(STATISTICS[stream], found.model_dump_json().encode())
    return {stream: LatentStatistics.model_validate_json(out.read_bytes(STATISTICS[stream])) for stream in wanted}


def _finish(
    out: Store,
    config: EncodeConfig,
    release: Manifest,
    origin: dict[str, Any],
    codecs: dict[str, str],
    models: Sequence[ModelUse],
    report: Callable[[str], None],
) -> Manifest:
    """Index, rejected clips and manifest, then ``_SUCCESS``; a split none of whose clips could be encoded is left out.

    Raises:
        ValueError: none of the release's could.
    """
    tables = [out.read_table([record_name(shard)]) for shard in release.shards]
    heads = [json.loads(table.schema.metadata[b"head"]) for table in tables]
    broken = [row for head in heads for row in head["broken"]]
    usual = Counter(reason for row in broken for reason in row["reasons"]).most_common(1)
    why = f"; {usual[0][1]} times: {usual[0][0]}" if usual else ""
    files, splits, shards = [], {}, []
    for split in release.splits:
        mine = [table for table, head in zip(tables, heads, strict=True) if head["split"] == split]
        index = pa.concat_tables([INDEX_SCHEMA.empty_table(), *(t.replace_schema_metadata(None) for t in mine)])
        entries = [ShardEntry(**h["shard"]) for h in heads if h["split"] == split and h["shard"]]
        if not entries:
            report(f"no clip of split {split} could be encoded, so the latents have no such split{why}")
            continue
        name = f"{split}.index.parquet"
        files.append(_table(out, name, index.replace_schema_metadata(INDEX_SCHEMA.metadata)))
        seconds = sum(index["duration_s"].to_pylist())
        splits[split] = SplitTotals(len(index), len(entries), sum(e.bytes for e in entries), round(seconds, 3), name)
        shards += entries
    if not shards:
        raise ValueError(f"no clip of {config.release} could be encoded{why}")
    if broken:
        files.append(_table(out, "rejected/part-000000.parquet", pa.Table.from_pylist(broken, REJECTED_SCHEMA)))
    for name in STATISTICS.values():
        if out.exists(name):
            files.append(_entry(name, out.read_bytes(name)))
    manifest = Manifest(
        version=config.name,
        previous="",
        build=build_of(origin),
        splits=splits,
        shards=sorted(shards, key=lambda entry: entry.number),
        files=files,
        rejected={"broken": len(broken)} if broken else {},
        process={
            "release": release.build,
            "origin": origin,
            "codecs": codecs,
            "models": [use.model_dump(mode="json") for use in models],
        },
    )
    content = manifest.dumps()
    out.write_bytes("manifest.json", content)
    out.write_bytes(SUCCESS, f"{hashlib.sha256(content).hexdigest()}  manifest.json\n".encode())
    _clear(out)
    return manifest


def _clear(out: Store) -> None:
    if out.exists(BUILD):
        out.fs.rm(out.path(BUILD), recursive=True)


def _table(out: Store, name: str, table: pa.Table) -> FileEntry:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    data = sink.getvalue().to_pybytes()
    out.write_bytes(name, data)
    return _entry(name, data, len(table))


def _entry(name: str, data: bytes, rows: int = 0) -> FileEntry:
    return FileEntry(name, len(data), hashlib.sha256(data).hexdigest(), rows)


def main(arguments: Sequence[str] | None = None) -> int:
    return cli.run(PROGRAM, arguments)


def _encode_release(options: argparse.Namespace) -> int:
    config = load(options.config, EncodeConfig, options.overrides)
    manifest = encode(config, _logger.info)
    left_out = f", {sum(manifest.rejected.values())} could not be encoded" if manifest.rejected else ""
    print(f"{config.folder}: {manifest.clips} clips{left_out}, {manifest.bytes / 1e9:.2f} GB")
    return 0


PROGRAM = Program(
    "python -m train.encode",
    "Turn a release into latents, which training reads in place of its media; continues where an earlier run stopped.",
    Command(
        _encode_release,
        "encode a release",
        [
            "python -m train.encode --config configs/train/encode_tiny.yaml",
            "python -m train.encode --config configs/train/encode_paper.yaml --set release=s3://bucket/v1",
            "ray job submit --working-dir . -- python -m train.encode --config configs/train/encode_paper.yaml",
        ],
        config=ConfigFile(EncodeConfig, "configs/train/encode_*.yaml"),
    ),
)

if __name__ == "__main__":
    sys.exit(main())
