"""``python -m train.encode``: turn a release into latents, which training reads in place of its media.

A release's shard becomes a shard of latents, by one of ``workers`` processes on Ray or by this one. What is finished
stays; a job that was killed goes on where it was when it is started again. Latents know the release and the codecs
that they were made from; others are refused.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from corpus.manifest import SUCCESS, FileEntry, Manifest, ShardEntry, SplitTotals, read_manifest
from corpus.schema import INDEX_SCHEMA, REJECTED_SCHEMA
from corpus.storage import Store
from engine.config import ConfigError, load
from engine.executors import ClusterError, connect
from engine.progress import Progress
from model.codecs.statistics import LatentStatistics
from train.encode_config import EncodeConfig, build_of
from train.encode_shard import BUILD, STATISTICS, Encoder, encode_shard, measure, record_name

EXAMPLES = """examples:
  python -m train.encode --config configs/train/encode_tiny.yaml
  python -m train.encode --config configs/train/encode_paper.yaml --set release=s3://bucket/v1
  ray job submit --working-dir . -- python -m train.encode --config configs/train/encode_paper.yaml
"""
PLAN = f"{BUILD}/plan.json"


def encode(config: EncodeConfig, report: Callable[[str], None]) -> Manifest:
    """Encode what is not encoded yet; a finished set of the same latents is left alone.

    Raises:
        ConfigError: the folder holds other latents.
        ManifestError, ShardError, FileNotFoundError: the release is not whole.
        ValueError: weights or statistics that do not fit; a release none of whose clips can be encoded.
        OSError: the storage failed; what was finished stays.
    """
    release = read_manifest(Store(config.release))
    out = Store(config.folder)
    build = build_of(config, release.build, _call(config, fingerprints, config))
    if out.exists(SUCCESS):
        found = read_manifest(out)
        if found.build != build:
            raise ConfigError(_stale(config))
        report(f"{config.folder} is finished: {found.clips} clips")
        return found
    if not out.exists(PLAN):
        if out.walk():
            raise ConfigError(f"{config.folder} is not empty and holds no latents: choose another name")
        out.write_json(PLAN, {"build": build})
    elif out.read_json(PLAN)["build"] != build:
        raise ConfigError(_stale(config))
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
    return _finish(out, config, release, build, _call(config, fingerprints, config, statistics))


def fingerprints(config: EncodeConfig, statistics: Mapping[str, LatentStatistics] | None = None) -> dict[str, str]:
    """Of the codecs and the text encoder, which it builds."""
    return Encoder(config, statistics).fingerprints()


def measured(config: EncodeConfig) -> dict[str, LatentStatistics]:
    return measure(Encoder(config))


class Worker:
    """What one process does; on Ray an actor, whose codecs stay loaded between shards."""

    def __init__(self, config: EncodeConfig, statistics: Mapping[str, LatentStatistics]) -> None:
        self._encoder, self._out = Encoder(config, statistics), Store(config.folder)

    def encode(self, shard: ShardEntry) -> int:
        return encode_shard(self._encoder, self._out, shard)


def _here(
    config: EncodeConfig, statistics: Mapping[str, LatentStatistics], shards: Sequence[ShardEntry]
) -> Iterator[int]:
    return map(Worker(config, statistics).encode, shards)


def _on_ray(
    config: EncodeConfig, statistics: Mapping[str, LatentStatistics], shards: Sequence[ShardEntry]
) -> Iterator[int]:
    """A pool of actors; Ray starts one that died again and repeats its shard."""
    import ray
    from ray.util import ActorPool

    connect(config.executor)
    kind = ray.remote(**_needs(config), max_restarts=-1, max_task_retries=3)(Worker)
    actors = [kind.remote(config, statistics) for _ in range(min(config.workers.max_actors, len(shards)))]
    try:
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
    return ray.get(ray.remote(**_needs(config))(function).remote(*arguments))


def _needs(config: EncodeConfig) -> dict[str, float | None]:
    return {"num_cpus": config.workers.cpus, "num_gpus": config.workers.gpus or None}


def _stale(config: EncodeConfig) -> str:
    return (
        f"{config.folder} holds latents of another release, of other codecs or of other settings: choose another name, "
        "or delete the folder"
    )


def _statistics(config: EncodeConfig, out: Store, report: Callable[[str], None]) -> dict[str, LatentStatistics]:
    """Measured once and stored; a job that goes on takes the stored ones."""
    wanted = [stream for stream in STATISTICS if getattr(config.statistics, stream)]
    if not all(out.exists(STATISTICS[stream]) for stream in wanted):
        report(f"measuring the latents of {config.statistics.clips} clips")
        for stream, found in _call(config, measured, config).items():
            out.write_bytes(STATISTICS[stream], found.model_dump_json().encode())
    return {stream: LatentStatistics.model_validate_json(out.read_bytes(STATISTICS[stream])) for stream in wanted}


def _finish(out: Store, config: EncodeConfig, release: Manifest, build: str, codecs: dict[str, str]) -> Manifest:
    """Index, rejected clips and manifest, then ``_SUCCESS``."""
    tables = [out.read_table([record_name(shard)]) for shard in release.shards]
    heads = [json.loads(table.schema.metadata[b"head"]) for table in tables]
    files, splits, shards = [], {}, []
    for split in release.splits:
        mine = [table for table, head in zip(tables, heads, strict=True) if head["split"] == split]
        index = pa.concat_tables([INDEX_SCHEMA.empty_table(), *(t.replace_schema_metadata(None) for t in mine)])
        entries = [ShardEntry(**h["shard"]) for h in heads if h["split"] == split and h["shard"]]
        if not entries:
            raise ValueError(f"no clip of split {split} could be encoded; the records in {out.root}/{BUILD} say why")
        name = f"{split}.index.parquet"
        files.append(_table(out, name, index.replace_schema_metadata(INDEX_SCHEMA.metadata)))
        seconds = sum(index["duration_s"].to_pylist())
        splits[split] = SplitTotals(len(index), len(entries), sum(e.bytes for e in entries), round(seconds, 3), name)
        shards += entries
    broken = [row for head in heads for row in head["broken"]]
    if broken:
        files.append(_table(out, "rejected/part-000000.parquet", pa.Table.from_pylist(broken, REJECTED_SCHEMA)))
    for name in STATISTICS.values():
        if out.exists(name):
            files.append(_entry(name, out.read_bytes(name)))
    manifest = Manifest(
        version=config.name,
        previous="",
        build=build,
        splits=splits,
        shards=sorted(shards, key=lambda entry: entry.number),
        files=files,
        rejected={"broken": len(broken)} if broken else {},
        process={"release": release.build, "codecs": codecs, "settings": config.decisive()},
    )
    content = manifest.dumps()
    out.write_bytes("manifest.json", content)
    out.write_bytes(SUCCESS, f"{hashlib.sha256(content).hexdigest()}  manifest.json\n".encode())
    out.fs.rm(out.path(BUILD), recursive=True)
    out.remove_partial_files()
    return manifest


def _table(out: Store, name: str, table: pa.Table) -> FileEntry:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    data = sink.getvalue().to_pybytes()
    out.write_bytes(name, data)
    return _entry(name, data, len(table))


def _entry(name: str, data: bytes, rows: int = 0) -> FileEntry:
    return FileEntry(name, len(data), hashlib.sha256(data).hexdigest(), rows)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m train.encode",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="configs/train/encode_*.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one setting, a.b=c")
    options = parser.parse_args(arguments)
    try:
        config = load(options.config, EncodeConfig, options.set)
        manifest = encode(config, lambda line: print(line, file=sys.stderr, flush=True))
    except (ConfigError, ClusterError, ValueError, FileNotFoundError) as error:
        print(f"train.encode: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"train.encode: {error}; what was finished is kept, run again to go on", file=sys.stderr)
        return 1
    left_out = f", {sum(manifest.rejected.values())} could not be encoded" if manifest.rejected else ""
    print(f"{config.folder}: {manifest.clips} clips{left_out}, {manifest.bytes / 1e9:.2f} GB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
