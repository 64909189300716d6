"""Planning and selecting at the mission's size, on synthetic scores.

Writes a clips table and one score table a stage of the given profile, then measures in a process of its own each:
the plan (anti-join of clips and scores, with a share of failures, skips and missing rows), and selection with the
funnel. The bars are 60 s and 4 GiB each at 2.3 million clips.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.machine import headline, peak_gib
from curation.catalogue import tier
from curation.config import Curation, CurationConfig, resolve_config
from curation.job import read_rows
from curation.report.gather import TIER_ORDER
from curation.select import count_unbroken, load_ruled, select
from engine.items import Clip, schema_of
from engine.ledger import row_schema
from engine.specs import ROW_SCHEMA, StageSpec
from engine.work import outstanding
from kit import cli
from kit.cli import Command, ConfigFile, Program, argument
from unitalking_data.storage import Store

PART_ROWS = 100_000


def main(arguments: Sequence[str] | None = None) -> int:
    return cli.run(PROGRAM, arguments)


def _benchmark(options: argparse.Namespace) -> int:
    print(headline("benchmarks.ledger"))
    with tempfile.TemporaryDirectory() as temporary:
        root = options.folder or Path(temporary)
        curation = _curation(options.config, options.overrides, root)
        if not Store(root).exists("clips/part-000000.parquet"):
            started = time.perf_counter()
            _write(curation, options.clips)
            seconds = time.perf_counter() - started
            print(f"wrote {options.clips:,} clips and {len(curation.specs)} tables in {seconds:.0f} s")
        print(f"{'':24}{'seconds':>10}{'peak GiB':>10}   result")
        for name, job in {"plan (anti-join)": _plan, "select with funnel": _select}.items():
            # spawned, so that the peak memory is this job's own
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                seconds, peak, result = pool.apply(_measured, (job, options.config, options.overrides, root))
            print(f"{name:24}{seconds:10.1f}{peak:10.2f}   {result}")
    return 0


def _curation(config: str, overrides: Sequence[str], root: Path) -> Curation:
    return resolve_config(config, [*overrides, f"root={root}"])


def _measured(
    job: Callable[[Curation], str], config: str, overrides: Sequence[str], root: Path
) -> tuple[float, float, str]:
    curation = _curation(config, overrides, root)
    started = time.perf_counter()
    result = job(curation)
    return time.perf_counter() - started, peak_gib(), result


def _plan(curation: Curation) -> str:
    work = outstanding(curation.ledger, read_rows(curation.store, "clips"), curation.clips.groups, 2)
    return f"{len(work.table):,} clips have something to do"


def _select(curation: Curation) -> str:
    clips = read_rows(curation.store, "clips", ["key"])
    scores = load_ruled(curation.ledger, clips, curation.specs, curation.rules)
    verdicts = select(scores, curation.rules, 2)
    rule_sets = [[r for r in curation.rules if tier(r.stage) in TIER_ORDER[:n]] for n in range(1, len(TIER_ORDER) + 1)]
    counts = count_unbroken(scores, rule_sets)
    return f"{len(verdicts):,} verdicts; left after the tiers: " + " → ".join(f"{count:,}" for count in counts)


def _write(curation: Curation, count: int) -> None:
    rng, store = np.random.default_rng(0), curation.store
    for start in range(0, count, PART_ROWS):
        size = min(PART_ROWS, count - start)
        keys = [f"{number:032x}" for number in rng.integers(0, 2**62, size)]
        number = start // PART_ROWS
        store.write_table(f"clips/part-{number:06}.parquet", _clips(keys))
        for spec in curation.specs:
            store.write_table(f"{curation.ledger.folder(spec)}/part-{number:06}.parquet", _scores(spec, keys, rng))


def _clips(keys: list[str]) -> pa.Table:
    size = len(keys)
    columns = {
        "key": keys,
        "source_uri": [f"s3://bucket/videos/{key}.mp4" for key in keys],
        "content": keys,
        "provenance": ['{"collection": "synthetic"}'] * size,
    }
    numbers = {"start_s": 0.0, "end_s": 5.0, "width": 1280, "height": 720, "fps": 25.0, "audio_rate": 44100}
    columns |= {name: [value] * size for name, value in numbers.items()} | {"licence": ["CC-BY-4.0"] * size}
    return pa.table({name: columns[name] for name in schema_of(Clip).names}, schema=schema_of(Clip))


def _scores(spec: StageSpec, keys: list[str], rng: np.random.Generator) -> pa.Table:
    """Random values; 1 % of the rows missing, 1 % failed, 3 % skipped."""
    kept = rng.random(len(keys)) > 0.01
    keys = [key for key, keep in zip(keys, kept, strict=True) if keep]
    size = len(keys)
    draw = rng.random(size)
    status = np.where(draw < 0.01, "failed", np.where(draw < 0.04, "skipped", "value"))
    columns = {
        "key": pa.array(keys),
        "status": pa.array(status),
        "attempts": pa.array(np.where(status == "skipped", 0, 1), pa.int32()),
        "error_kind": pa.array(np.where(status == "failed", "timeout", None), pa.string()),
    }
    fields = []
    for field in row_schema(spec):
        if field.name not in columns:
            columns[field.name] = _random(field.type, status == "value", rng, field.name in ROW_SCHEMA.names)
        fields.append(field)
    return pa.table([columns[field.name] for field in fields], schema=pa.schema(fields))


def _random(kind: pa.DataType, present: np.ndarray, rng: np.random.Generator, common: bool) -> pa.Array:
    size, absent = len(present), None if common else ~present
    if pa.types.is_floating(kind):
        return pa.array(rng.normal(0.5, 0.5, size), kind, mask=absent)
    if pa.types.is_integer(kind):
        return pa.array(rng.integers(0, 5, size), kind, mask=absent)
    if pa.types.is_boolean(kind):
        return pa.array(rng.random(size) > 0.1, kind, mask=absent)
    return pa.nulls(size, kind)


PROGRAM = Program(
    "python -m benchmarks.ledger",
    "Measure planning and selecting on synthetic scores. The bars are 60 s and 4 GiB each at 2.3 million clips.",
    Command(
        _benchmark,
        "measure",
        ["python -m benchmarks.ledger", "python -m benchmarks.ledger --clips 100000 --folder runs/ledger"],
        [
            argument("--clips", help="rows of each table", type=int, default=2_300_000),
            argument("--folder", help="keep the tables here; a temporary folder if not given", type=Path),
        ],
        ConfigFile(CurationConfig, "configs/profiles/*.yaml", default="configs/profiles/cpu.yaml"),
    ),
)

if __name__ == "__main__":
    sys.exit(main())
