"""The trainer's own work beside the network's, and what sharding leaves on a rank.

Trains the tiny recipe on a release of random latents of the tiny world's shapes and splits the wall time of a step
into data, forward, backward, optimizer and checkpoint; every clip is read from its shard every time. Then shards a
model over two processes and compares what each holds with what ``--dry-run`` computes. Two bars, and the exit status
says whether they are met: less than 5 % of a step outside forward, backward and optimizer, and memory within 1 %.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import safetensors.torch
import torch
import torch.multiprocessing as multiprocessing

from benchmarks.machine import headline
from kit import cli
from kit.cli import Command, Program, argument
from kit.config import load
from train.config import Recipe
from train.dryrun import estimate
from train.loop import Trainer
from train.parallel import start_world
from unitalking_data.manifest import MANIFEST, SUCCESS, FileEntry, Manifest, ShardEntry, SplitTotals
from unitalking_data.schema import INDEX_SCHEMA
from unitalking_data.shard import pack, shard_name, write_shard
from unitalking_data.storage import Store

RECIPE = Path(__file__).resolve().parents[1] / "configs" / "train" / "tiny_stage2.yaml"
FRAMES, SIDE, AUDIO = 17, 2, 34
PHASES = ("data", "forward", "backward", "optimizer", "checkpoint")
NETWORK = ("forward", "backward", "optimizer")
MOST_OUTSIDE, MOST_OFF = 0.05, 0.01
SHARDED = {"layers": 6, "dim": 384, "heads": 6, "ffn_dim": 1536}


def main(arguments: Sequence[str] | None = None) -> int:
    return cli.run(PROGRAM, arguments)


def _benchmark(options: argparse.Namespace) -> int:
    print(headline("benchmarks.train"))
    with tempfile.TemporaryDirectory() as folder:
        recipe = load(RECIPE, Recipe)
        release = _write_release(Path(folder) / "release", recipe, options.clips)
        quick = _split(_changed(recipe, release, Path(folder) / "run", steps=options.steps), options.steps)
        small = _changed(
            recipe,
            release,
            Path(folder) / "sharded",
            steps=2,
            batch=4,
            model={**recipe.model.model_dump(), **SHARDED},
            ema={"decay": 0.99},
            parallel={"device": "cpu", "threads": 1, "micro_batch": 1},
            estimate={"video": [FRAMES, SIDE, SIDE], "audio": AUDIO},
        )
        held = _memory(small, Path(folder))  # two micro-batches of a sample each
    return 0 if quick and held else 1


def _changed(recipe: Recipe, release: str, out: Path, **changes: Any) -> Recipe:
    content = recipe.content()
    content["data"] |= {"release": release, "in_memory": False}
    shown = {"log": {"every": 1, "tensorboard": False}, "checkpoint": {"every": 50}, "init": {}, "out": str(out)}
    return Recipe.model_validate({**content, **shown, **changes})


def _split(recipe: Recipe, steps: int) -> bool:
    with torch.random.fork_rng():
        Trainer(recipe, start_world(recipe.parallel, stall_s=600)).run()
    lines = (Path(recipe.out) / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines][steps // 10 :]  # the first steps start workers and import

    def mean(name: str) -> float:
        return sum(record.get(f"time/{name}", 0.0) for record in found) / len(found)

    total = mean("total")
    print(f"\na step of {recipe.batch} samples, {len(found)} steps, checkpoints every {recipe.checkpoint.every}")
    for name in PHASES:
        print(f"{name:12}{1000 * mean(name):9.2f} ms{mean(name) / total:8.1%}")
    rest = total - sum(map(mean, PHASES))
    print(f"{'the rest':12}{1000 * rest:9.2f} ms{rest / total:8.1%}")
    print(f"{'in all':12}{1000 * total:9.2f} ms")
    outside = 1 - sum(map(mean, NETWORK)) / total
    print(f"outside forward, backward and optimizer: {outside:.1%} (bar {MOST_OUTSIDE:.0%})")
    return outside < MOST_OUTSIDE


def _memory(recipe: Recipe, folder: Path) -> bool:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(_hold, (recipe.content(), port, folder), nprocs=2)
    expected = estimate(recipe, 2).states
    print(f"\nbytes of weights, gradients, Adam and average on a rank of two; computed {expected / 1e6:.2f} MB")
    within = True
    for rank in range(2):
        held = json.loads((folder / f"held-{rank}.json").read_text())
        found = sum(held.values())
        parts = ", ".join(f"{name} {value / 1e6:.2f}" for name, value in held.items())
        print(f"rank {rank}: {found / 1e6:.2f} MB ({parts}), off by {found / expected - 1:.2%} (bar {MOST_OFF:.0%})")
        within &= abs(found / expected - 1) < MOST_OFF
    return within


def _hold(rank: int, content: Mapping[str, Any], port: int, folder: Path) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    recipe = Recipe.model_validate(content)
    trainer = Trainer(recipe, start_world(recipe.parallel, stall_s=600))
    held = dict.fromkeys(("weights", "gradients", "Adam", "average"), 0)

    def size(x: Any) -> int:
        return (x.to_local() if hasattr(x, "to_local") else x).nbytes

    apply = trainer.optimizer.step

    def step() -> None:
        apply()
        for parameter in trainer.model.parameters():
            held["weights"] += size(parameter)
            held["gradients"] += size(parameter.grad) if parameter.grad is not None else 0
            held["Adam"] += sum(map(size, trainer.optimizer.state[parameter].values()))
        held["average"] += sum(map(size, trainer.ema.average.values()))
        trainer.optimizer.step = apply

    trainer.optimizer.step = step
    trainer.run()
    (folder / f"held-{rank}.json").write_text(json.dumps(held))


def _write_release(root: Path, recipe: Recipe, clips: int) -> str:
    """Random latents, stored as the encoder stores them, and the least of a release around them."""
    model = recipe.model
    rows, written = [], Store(root / "latents" / recipe.data.latents)

    def latents(number: int) -> dict[str, bytes]:
        generator = torch.Generator().manual_seed(number)

        def noise(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator)

        tensors = {
            "video": noise(model.video_channels, FRAMES, SIDE, SIDE),
            "audio": noise(model.audio_channels, AUDIO),
        }
        tensors |= {f"ref{take}": noise(model.audio_channels, 40) for take in range(3)}
        names = {name for shares in recipe.data.texts.values() for name in shares}
        tensors |= {f"text.{name}": noise(12, model.text_dim) for name in names}
        return {"latents.safetensors": safetensors.torch.save(tensors | {"text.null": torch.zeros(0, model.text_dim)})}

    name = shard_name("train", 0)
    keys = [f"clip{number:06d}" for number in range(clips)]
    shard = write_shard(written, name, (pack(key, latents(number)) for number, key in enumerate(keys)))
    for place in shard.places:
        where = {"key": place.key, "shard": 0, "offset": place.offset, "size": place.size, "crc32": place.crc32}
        rows.append(where | {"duration_s": 1.7, "width": 32, "height": 32, "fingerprint": ""})
    written.write_table("train.index.parquet", pa.Table.from_pylist(rows, INDEX_SCHEMA))
    data = written.read_bytes("train.index.parquet")
    index = FileEntry("train.index.parquet", len(data), hashlib.sha256(data).hexdigest(), clips)
    totals = SplitTotals(clips, 1, shard.bytes, 1.7 * clips, "train.index.parquet")
    entry = ShardEntry(name, shard.bytes, shard.sha256, clips, keys[0], keys[-1])
    made = {"release": "random"}
    content = Manifest(recipe.data.latents, "", "random", {"train": totals}, [entry], [index], process=made).dumps()
    for store in (written, Store(root)):
        store.write_bytes(MANIFEST, content)
        store.write_bytes(SUCCESS, b"")
    return str(root)


PROGRAM = Program(
    "python -m benchmarks.train",
    "Measure the trainer's own work beside the network's, and what sharding leaves on a rank. The exit code says "
    "whether both bars are met.",
    Command(
        _benchmark,
        "measure",
        ["python -m benchmarks.train", "python -m benchmarks.train --clips 256 --steps 50"],
        [
            argument("--clips", help="of the release that is read", type=int, default=1024),
            argument("--steps", help="that are timed", type=int, default=200),
        ],
    ),
)

if __name__ == "__main__":
    sys.exit(main())
