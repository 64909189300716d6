"""What curation costs, scorer by scorer and executor by executor.

One table: per scorer CPU seconds a clip; decode passes a clip; peak memory; clips a second of ``local`` and of ``ray``
with one and two workers, against the bare-decode floor (every frame and sample of the same clips decoded once and
thrown away) in the same run. The clips are repeated ``--repeat`` times under other names and keys.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace

import av
import duckdb
import psutil
import pyarrow as pa

from benchmarks.machine import headline
from curation.config import Curation, CurationConfig, resolve_config
from curation.job import ingest, read_rows
from engine.executors import run_local, run_ray
from engine.items import stable_hash
from engine.work import outstanding
from kit import cli
from kit.cli import Command, ConfigFile, Program, argument

NEURAL = ("sentences", "events", "snr", "faces", "text_overlay", "active_speaker", "mouth_motion", "lip_sync")


def main(arguments: Sequence[str] | None = None) -> int:
    return cli.run(PROGRAM, arguments)


def _benchmark(options: argparse.Namespace) -> int:
    print(headline("benchmarks.curation"))
    with tempfile.TemporaryDirectory() as folder:
        base = [f"listing.inputs=['{options.clips}']", "executor.address=local", *options.overrides]
        first = resolve_config(options.config, [f"root={folder}/ingest", "executor.kind=local", *base])
        ingest(first, lambda line: None)
        clips = read_rows(first.store, "clips")
        clips = clips.slice(0, options.limit or len(clips))
        floor_wall, floor_cpu = _bare_decode(clips)
        print(f"clips: {len(clips)}, repeated {options.repeat} times")
        print(f"bare decode: {floor_wall / len(clips):.3f} s wall, {floor_cpu / len(clips):.3f} CPU s a clip")
        many = _repeated(clips, options.repeat)
        for executor in options.executors:
            kind, _, workers = executor.partition("-")
            settings = [f"root={folder}/{executor}", f"executor.kind={kind}"]
            settings += [f"groups.0.pool.{bound}={workers or 1}" for bound in ("max_actors", "min_actors")]
            curation = resolve_config(options.config, [*settings, *base])
            if options.measures_only:
                curation = _without_networks(curation)
            _measure(curation, many, executor, floor_cpu / len(clips))
    return 0


def _measure(curation: Curation, clips: pa.Table, executor: str, floor: float) -> None:
    work = outstanding(curation.ledger, clips, curation.clips.groups, 1).table
    local = curation.config.executor.kind == "local"
    batches = run_local(curation.clips, work) if local else run_ray(curation.clips, work, curation.config.executor)
    first, memory = None, []
    for _ in batches:
        first = first or time.perf_counter()
        memory.append(_scoring_memory())
    # From the first batch on: starting actors and loading models is paid once, not a clip.
    seconds = time.perf_counter() - first
    counted = len(clips) - curation.config.groups[0].batch_size
    print(f"\n{executor}: {counted / seconds:.2f} clips/s after the first batch, {len(clips)} clips")
    tenths = [max(memory[len(memory) * tenth // 10 :][: max(1, len(memory) // 10)]) for tenth in range(10)]
    print(f"  memory of the largest scoring process by tenths of the run, MiB: {' '.join(map(str, tenths))}")
    _per_stage(curation, len(clips), floor)


def _scoring_memory() -> int:
    """Resident MiB of the largest guarded process on this machine right now."""
    sizes = [0]
    for process in psutil.process_iter(["cmdline", "memory_info"]):
        if "engine.guard" in (process.info["cmdline"] or ()) and process.info["memory_info"]:
            sizes.append(process.info["memory_info"].rss >> 20)
    return max(sizes)


def _per_stage(curation: Curation, clips: int, floor: float) -> None:
    with duckdb.connect() as connection:
        rows, opens, opening, peak = [], 0, 0.0, 0
        for spec in curation.specs:
            curation.ledger.view(connection, spec, "scores")
            query = """SELECT sum(cpu_seconds), sum(seconds), sum(open_seconds), max(peak_memory),
                count(*) FILTER (WHERE open_seconds > 0), count(*) FILTER (WHERE status <> 'skipped') FROM scores"""
            cpu, seconds, open_seconds, memory, opened, items = connection.sql(query).fetchall()[0]
            rows.append((spec.name, (cpu or 0) / clips, (seconds or 0) / clips, items))
            opens, opening, peak = opens + opened, opening + (open_seconds or 0), max(peak, memory or 0)
    print(
        f"  {'scorer':16}{'CPU s/clip':>12}{'s/clip':>10}{'scored':>8}   (the first scorer's CPU includes the decode)"
    )
    for name, cpu, seconds, items in rows:
        print(f"  {name:16}{cpu:12.3f}{seconds:10.3f}{items:8}")
    measures = sum(cpu for name, cpu, _, _ in rows if name not in NEURAL)
    total = sum(row[1] for row in rows)
    print(f"  all: {total:.3f} CPU s a clip; decode {opening / clips:.3f} s; {opens / clips:.2f} passes")
    print(f"  all but the neural scorers: {measures:.3f} CPU s a clip, {measures / floor:.2f} × the bare decode")
    print(f"  peak memory of a scoring process: {peak / 2**30:.2f} GiB")


def _bare_decode(clips: pa.Table) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    for row in clips.to_pylist():
        with av.open(row["source_uri"]) as container:
            container.streams.video[0].codec_context.thread_count = 1
            for frame in container.decode(*container.streams.video[:1], *container.streams.audio[:1]):
                if isinstance(frame, av.VideoFrame) and frame.time and frame.time > row["end_s"]:
                    break
    return time.perf_counter() - wall, time.process_time() - cpu


def _repeated(clips: pa.Table, times: int) -> pa.Table:
    pieces = []
    for number in range(times):
        keys = pa.array([stable_hash(key, number) for key in clips["key"].to_pylist()])
        pieces.append(clips.set_column(0, clips.schema.field("key"), keys))
    return pa.concat_tables(pieces)


def _without_networks(curation: Curation) -> Curation:
    left_out = {*NEURAL, "quality"}  # quality looks at faces, which networks find
    groups = tuple(
        replace(group, stages=tuple(spec for spec in group.stages if spec.name not in left_out), gates=())
        for group in curation.clips.groups
    )
    return replace(curation, clips=replace(curation.clips, groups=groups))


PROGRAM = Program(
    "python -m benchmarks.curation",
    "Measure what curation costs: CPU seconds a clip of each scorer, decode passes, peak memory, and clips a second of "
    "each executor, beside bare decoding of the same clips.",
    Command(
        _benchmark,
        "measure",
        [
            "python -m benchmarks.curation --clips DIR --limit 24",
            "python -m benchmarks.curation --clips DIR --repeat 3 --measures-only --executors ray-1 ray-2",
        ],
        [
            argument("--clips", help="folder of videos", required=True),
            argument("--limit", help="score only so many clips; 0 scores all", type=int, default=0),
            argument("--repeat", help="score every clip so many times, as so many clips", type=int, default=1),
            argument(
                "--executors",
                help="what runs the scorers: local, or ray-N with N workers",
                nargs="+",
                default=["local", "ray-1", "ray-2"],
                metavar="KIND",
            ),
            argument("--measures-only", help="leave the neural scorers out", action="store_true"),
        ],
        ConfigFile(CurationConfig, "configs/profiles/*.yaml", default="configs/profiles/cpu.yaml"),
    ),
)

if __name__ == "__main__":
    sys.exit(main())
