"""The loader beside stock webdataset and the bare tar bytes, and at size.

Writes a release of generated clips and reads it in turns: the bytes of the tars, webdataset, and the loader, in the
order of the shards and shuffled, without and with video decode, in this process and with two workers. Everything is in
the page cache, so what is compared is work, not disks. Then: memory over many epochs, and opening, shuffling and
resuming 2.3 million clips in 4,600 shards (their tars are links to one file), each in a process of its own. The bars
are stock speed without decode, flat memory, a second a thousand shards to start, and 2 s and 1 GiB at size.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import torch
import webdataset
from torch.utils.data import DataLoader

from benchmarks.machine import headline
from kit import cli
from kit.cli import Command, Program, argument
from media.encode import write_video
from unitalking_data.buckets import Buckets
from unitalking_data.dataset import ClipDataset
from unitalking_data.decoders import DECODERS, decode_video
from unitalking_data.loader import ClipLoader
from unitalking_data.manifest import MANIFEST, SUCCESS, FileEntry, Manifest, ShardEntry, SplitTotals
from unitalking_data.schema import INDEX_SCHEMA, meta_schema
from unitalking_data.shard import Place, ShardFile, pack, shard_name, write_shard
from unitalking_data.storage import Store

BATCH = 16
DECODED_BATCHES = 2
GRID = Buckets(durations_s=(2, 3, 4, 5), aspects=(9 / 16, 1, 16 / 9))


def main(arguments: Sequence[str] | None = None) -> int:
    return cli.run(PROGRAM, arguments)


def _benchmark(options: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    print(headline("benchmarks.loader"))
    with tempfile.TemporaryDirectory() as folder:
        _speed(Path(folder) / "speed", options.shards, options.clips, options.rounds)
    with tempfile.TemporaryDirectory() as folder:
        _memory(Path(folder) / "memory")
    with tempfile.TemporaryDirectory() as folder:
        _size(Path(folder) / "thousand", 1000, options.big_clips)
        _size(Path(folder) / "size", options.big_shards, options.big_clips)
    return 0


def _speed(root: Path, shards: int, clips: int, rounds: int) -> None:
    video = _video(root)
    noise = random.Random(0).randbytes(441_000)

    def make(key: str) -> dict[str, bytes]:
        takes = {f"ref{take}.wav": noise[:176_400] for take in range(3)}
        return {"mp4": video, "wav": noise} | takes | {"json": json.dumps({"key": key}).encode()}

    manifest = _write(root, shards, clips, make)
    total, count = sum(shard.bytes for shard in manifest.shards), shards * clips
    print(
        f"\n{count} clips in {shards} shards, {total / count / 1e6:.2f} MB a clip ({len(video) / 1e6:.2f} MB of video)"
    )
    tars = [str(root / shard.path) for shard in manifest.shards]
    bare, plain = ClipDataset(root, "train", prompts=None), ClipDataset(root, "train")
    decoding = ClipDataset(root, "train", decoders={"mp4": DECODERS["mp4"]})
    few = ClipDataset(root, "train", members=["mp4", "wav"])

    def ours(dataset: ClipDataset, workers: int = 0, **how: Any) -> Iterable[Any]:
        return ClipLoader(dataset, batch=BATCH, epochs=1, workers=workers, **how)

    def stock(decode: bool, workers: int = 0) -> Iterable[Any]:
        clips = webdataset.WebDataset(tars, shardshuffle=False)
        clips = clips.map_dict(mp4=decode_video) if decode else clips
        return DataLoader(clips.batched(BATCH, collation_fn=list), batch_size=None, num_workers=workers)

    ways: dict[str, Callable[[], Iterable[Any]]] = {
        "tar bytes": lambda: _bytes_of(tars),
        "webdataset": lambda: stock(False),
        "loader, members only, shards' order": lambda: ours(bare, shuffled=False),
        "loader, members and prompts, shards' order": lambda: ours(plain, shuffled=False),
        "loader, shuffled": lambda: ours(plain),
        "loader, shuffled, mp4 and wav only": lambda: ours(few),
        "webdataset, 2 workers": lambda: stock(False, 2),
        "loader, shuffled, 2 workers": lambda: ours(plain, 2),
        "webdataset, video decoded": lambda: islice(stock(True), DECODED_BATCHES),
        "loader, shuffled, video decoded": lambda: islice(ours(decoding), DECODED_BATCHES),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    counts = {name: DECODED_BATCHES * BATCH if name.endswith("decoded") else count for name in ways}
    for way in ways.values():  # a first round fills the page cache
        for _ in way():
            pass
    for _ in range(rounds):
        for name, way in ways.items():
            began, used = time.perf_counter(), _cpu_s()
            for _ in way():
                pass
            seconds[name].append(time.perf_counter() - began)
            cpu[name].append(_cpu_s() - used)
    print(f"{'':44}{'clips/s':>9}{'MB/s':>7}{'of stock':>10}{'CPU ms a clip':>15}   medians of {rounds} (least–most)")
    for name, times in seconds.items():
        rates = [counts[name] / value for value in times]
        rate, rival = statistics.median(rates), statistics.median(seconds[_rival(name)])
        print(
            f"{name:44}{rate:9.1f}{rate * total / count / 1e6:7.0f}{rival / statistics.median(times):9.2f}×"
            f"{statistics.median(cpu[name]) / counts[name] * 1e3:15.2f}   ({min(rates):.0f}–{max(rates):.0f})"
        )


def _cpu_s() -> float:
    """Of this process and of the workers that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _rival(name: str) -> str:
    ending = next((end for end in (", 2 workers", ", video decoded") if name.endswith(end)), "")
    return f"webdataset{ending}"


def _bytes_of(tars: list[str]) -> Iterable[bytes]:
    for tar in tars:
        with Path(tar).open("rb", buffering=0) as stream:
            while block := stream.read(1 << 20):
                yield block


def _memory(root: Path, clips: int = 2000, epochs: int = 20) -> None:
    """Resident memory along many epochs over 40 shards of small clips."""
    content = random.Random(0).randbytes(20_000)
    _write(root, 40, clips // 40, lambda key: {"wav": content, "json": json.dumps({"key": key}).encode()})
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        marks, seen = pool.apply(_resident, (root, clips, epochs))
    line = ", ".join(f"{mark:.0f}" for mark in marks)
    print(f"\nresident MB after each second epoch of {clips} clips, {seen:,} clips in all: {line}")


def _resident(root: Path, clips: int, epochs: int) -> tuple[list[float], int]:
    loader = ClipLoader(ClipDataset(root, "train"), batch=BATCH, buckets=GRID, epochs=epochs)
    seen, marks = 0, []
    for batch in loader:
        seen += len(batch.samples)
        if seen // (2 * clips) > len(marks):
            marks.append(psutil.Process().memory_info().rss / 1e6)
    return marks, seen


def _size(root: Path, shards: int, clips: int) -> None:
    """Opening, shuffling and resuming a release of many shards."""
    store = Store(root)
    written = write_shard(store, "media/one.tar", (pack(f"clip-{n:06d}", {"wav": bytes(600)}) for n in range(clips)))
    rng = np.random.default_rng(0)
    for number in range(shards):
        os.link(root / "media/one.tar", root / "media" / shard_name("train", number))
    keys = [f"{number:032x}" for number in rng.integers(0, 2**62, shards * clips)]
    entries = [_entry(number, written, keys[number * clips : (number + 1) * clips]) for number in range(shards)]
    shapes = np.array([(1280, 720), (720, 1280), (720, 720)])[rng.integers(0, 3, len(keys))]
    columns = {
        "key": keys,
        "shard": np.repeat(np.arange(shards), clips),
        **{
            name: np.tile([getattr(place, name) for place in written.places], shards)
            for name in ("offset", "size", "crc32")
        },
        "duration_s": rng.uniform(2, 6, len(keys)),
        "width": shapes[:, 0],
        "height": shapes[:, 1],
        "fingerprint": [""] * len(keys),
    }
    arrays = [pa.array(columns[field.name], field.type) for field in INDEX_SCHEMA]
    _finish(store, pa.table(arrays, schema=INDEX_SCHEMA), entries)
    print(f"\n{len(keys):,} clips in {shards:,} shards{'':16}{'seconds':>10}{'of CPU':>10}{'peak GiB':>10}")
    for buckets in (Buckets(), GRID):
        state = None
        for name in ("open, shuffle, first batch", "open, resume, next batch"):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                times, cpu, peak, base, state = pool.apply(_opened, (root, buckets, state))
            what = f"{name}, {len(state['buckets'])} bucket{'s' * (len(state['buckets']) > 1)}"
            steps = ", ".join(f"{step} {value:.2f}" for step, value in times.items())
            print(f"{what:48}{sum(times.values()):10.2f}{cpu:10.2f}{peak:10.2f}   ({steps}; imports {base:.2f} GiB)")


def _opened(
    root: Path, buckets: Buckets, state: dict[str, Any] | None
) -> tuple[dict[str, float], float, float, float, dict[str, Any]]:
    base, marks, used = _peak_gib(), [time.perf_counter()], _cpu_s()
    dataset = ClipDataset(root, "train", prompts=None)
    marks.append(time.perf_counter())
    loader = ClipLoader(dataset, batch=64, buckets=buckets)
    if state:  # in the middle of the third epoch
        middle = [int(2.5 * size) for *_, size in state["buckets"]]
        loader.load_state_dict(state | {"consumed": middle})
    next(iter(loader))
    marks.append(time.perf_counter())
    steps = dict(zip(("open", "first batch"), np.diff(marks).tolist()))
    return steps, _cpu_s() - used, _peak_gib(), base, loader.state_dict()


def _peak_gib() -> float:
    """Most memory that this program has had resident; ``getrusage`` would count the one it was forked from."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 2**20


def _video(root: Path) -> bytes:
    """Five seconds of 640 × 360 with something moving before a grainy ground."""
    rng = np.random.default_rng(0)
    ground = rng.integers(60, 190, (360, 640, 3), np.uint8)
    frames = []
    for number in range(120):
        frame = ground + rng.integers(0, 12, (360, 640, 1), np.uint8)
        frame[100:220, 4 * number : 4 * number + 120] = (200, 80, 60)
        frames.append(frame)
    root.mkdir(parents=True)
    write_video(root / "clip.mp4", frames, 24, crf=30)
    return (root / "clip.mp4").read_bytes()


def _write(root: Path, shards: int, clips: int, make: Callable[[str], dict[str, bytes]]) -> Manifest:
    """A release with captions whose clips all hold what ``make`` gives."""
    store, entries, rows = Store(root), [], []
    for number in range(shards):
        keys = [f"clip-{number:04d}-{clip:05d}" for clip in range(clips)]
        written = write_shard(store, f"media/{shard_name('train', number)}", (pack(key, make(key)) for key in keys))
        entries.append(_entry(number, written, keys))
        rows += [_index_row(number, place) for place in written.places]
        store.write_table(f"meta/part-{number:06d}.parquet", _meta(number, keys))
    return _finish(store, pa.Table.from_pylist(rows, INDEX_SCHEMA), entries)


def _entry(number: int, written: ShardFile, keys: list[str]) -> ShardEntry:
    path, part = f"media/{shard_name('train', number)}", f"meta/part-{number:06d}.parquet"
    return ShardEntry(path, written.bytes, written.sha256, len(keys), keys[0], keys[-1], part)


def _index_row(number: int, place: Place) -> dict[str, Any]:
    found = {"key": place.key, "shard": number, "offset": place.offset, "size": place.size, "crc32": place.crc32}
    return found | {"duration_s": 5.0, "width": 640, "height": 360, "fingerprint": ""}


def _meta(number: int, keys: list[str]) -> pa.Table:
    captions = {name: f"A caption of {name}. " * 12 for name in ("video_detailed", "fused", "audio_caption")}
    row = captions | {"video_short": "A short caption.", "transcript": "What is said. " * 6, "split": "train"}
    row |= {
        "shard": number,
        "source": "",
        "licence": "",
        "provenance": "{}",
        "verdict": "kept",
        "video_cut": "generated",
    }
    row |= {"duration_s": 5.0, "frames": 120, "fps": 24.0, "width": 640, "height": 360}
    row |= {"audio_rate": 44_100, "audio_channels": 1, "audio_shift_s": 0.0}
    return pa.Table.from_pylist([row | {"key": key} for key in keys], meta_schema())


def _finish(store: Store, index: pa.Table, entries: list[ShardEntry]) -> Manifest:
    name = "media/train.index.parquet"
    store.write_table(name, index)
    data = store.read_bytes(name)
    files = [FileEntry(name, len(data), hashlib.sha256(data).hexdigest(), len(index))]
    totals = SplitTotals(len(index), len(entries), sum(entry.bytes for entry in entries), 0.0, name)
    manifest = Manifest("benchmark", "", "", {"train": totals}, entries, files)
    store.write_bytes(MANIFEST, manifest.dumps())
    store.write_bytes(SUCCESS, b"")
    return manifest


PROGRAM = Program(
    "python -m benchmarks.loader",
    "Measure the loader beside stock webdataset and the bare tar bytes, its memory over epochs, and opening and "
    "resuming at size.",
    Command(
        _benchmark,
        "measure",
        ["python -m benchmarks.loader", "python -m benchmarks.loader --shards 2 --clips 32 --big-shards 500"],
        [
            argument("--shards", help="of the release that is read", type=int, default=4),
            argument("--clips", help="in each of its shards", type=int, default=128),
            argument("--rounds", help="that medians are taken over", type=int, default=3),
            argument("--big-shards", help="of the large release", type=int, default=4600),
            argument("--big-clips", help="in each of the large release's shards", type=int, default=500),
        ],
    ),
)

if __name__ == "__main__":
    sys.exit(main())
