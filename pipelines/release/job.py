"""The release job: from the tables of curation, annotation and reference voices to shards that others can use."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from curation.config import resolve_config
from engine.executors import connect
from kit.progress import Progress
from kit.provenance import code_revision
from media.cut import VideoFormat
from pipelines.release.card import write_documents
from pipelines.release.config import ReleaseConfig, read_config
from pipelines.release.inputs import read_inputs
from pipelines.release.shard import ShardJob, build_shard, score_fields
from unitalking_data.layout import Previous, ShardLayout
from unitalking_data.manifest import Manifest
from unitalking_data.schema import meta_schema
from unitalking_data.writer import ReleaseWriter


def release(path: str, overrides: Sequence[str], report: Callable[[str], None]) -> Manifest:
    """Build a release, or go on with one that was stopped; what is finished is not made again.

    Raises:
        ConfigError, WeightsError, ClusterError, FileNotFoundError: what has to be put right first.
        ValueError: (:class:`unitalking_data.writer.ReleaseError`, :class:`unitalking_data.manifest.ManifestError`)
            another release stands there, or the clips cannot make one.
        OSError: the storage failed; run it again to go on.
    """
    config = read_config(path, list(overrides))
    curation = resolve_config(config.curation, config.curation_set)
    previous = Previous.open(config.previous_folder) if config.previous_folder else None
    inputs = read_inputs(config, curation, previous)
    schema = meta_schema(score_fields(curation.specs))
    writer = ReleaseWriter(config.folder, schema, config.previous_folder)
    todo = writer.begin(
        config.version,
        inputs.plan,
        splits=list(config.split.shares),
        shard_clips=config.shard_clips,
        process=inputs.process,
    )
    report(f"{len(inputs.clips)} clips to publish, {len(inputs.rejected)} not; {len(todo)} shards to write")
    job = ShardJob(
        writer=writer,
        ledger=curation.ledger,
        specs=curation.specs,
        video=VideoFormat(config.media.fps, config.media.crf, config.media.preset, config.media.copy_video),
        audio_rate=config.media.audio_rate,
        time_limit_s=config.media.time_limit_s,
        captions=config.captions,
        references=config.references,
    )
    work = _with_clips(todo, inputs.clips)
    progress = Progress("clips", sum(len(shard.clips) for shard in todo))
    for count in _on_ray(job, work, config) if config.executor.kind == "ray" else _here(job, work):
        progress.add(count)
    if todo:
        progress.finish()
    return writer.finish([inputs.rejected], code_revision=code_revision(), documents=write_documents)


def _with_clips(shards: Sequence[ShardLayout], clips: pa.Table) -> Iterator[tuple[ShardLayout, pa.Table]]:
    """Each shard with the rows of its clips."""
    keys = pa.concat_arrays([pa.array([], pa.string()), *(c for s in shards for c in s.clips["key"].chunks)])
    places = pc.index_in(keys, value_set=clips["key"].combine_chunks())
    start = 0
    for shard in shards:
        yield shard, clips.take(places.slice(start, len(shard.clips)))
        start += len(shard.clips)


def _here(job: ShardJob, work: Iterable[tuple[ShardLayout, pa.Table]]) -> Iterator[int]:
    for shard, clips in work:
        yield build_shard(job, shard, clips)


def _on_ray(job: ShardJob, work: Iterable[tuple[ShardLayout, pa.Table]], config: ReleaseConfig) -> Iterator[int]:
    """One task a shard, never more in flight than ``workers.max_actors``; Ray repeats one whose worker died."""
    import ray  # costs a second to import, which the local executor and every --help do without

    connect(config.executor)
    task = ray.remote(num_cpus=config.workers.cpus, max_retries=3)(build_shard)
    shared, left, running = ray.put(job), iter(work), []
    try:
        while True:
            free = config.workers.max_actors - len(running)
            running += [task.remote(shared, shard, clips) for shard, clips in itertools.islice(left, free)]
            if not running:
                return
            done, running = ray.wait(running, num_returns=1)
            try:
                count = ray.get(done[0])
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            yield count
    finally:
        for reference in running:
            ray.cancel(reference)
