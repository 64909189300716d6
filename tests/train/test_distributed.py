"""Two processes are one: FSDP2 over gloo, kills, another number of processes, a frozen rank, sequence parallelism."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from tests.conftest import REPOSITORY
from tests.train.worlds import recipe, stored, write_sampling, write_world
from train.checkpoint import whole_checkpoints
from train.cli import STOPPED
from train.loop import Trainer
from train.parallel import start_world
from train.watch import STUCK, blame

LIMIT_S = 150


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return write_world(str(tmp_path_factory.mktemp("world")))


@pytest.fixture(scope="module")
def alone(release):
    torch.set_num_threads(1)
    return start_world(recipe(release, "").parallel, stall_s=LIMIT_S)


def start(content, path: Path, *arguments: str, size: int = 2, prelude: str = "") -> list[subprocess.Popen]:
    """The processes that torchrun would start, each of which runs ``prelude`` first."""
    code = f"import os, sys\n{prelude}\nfrom train import cli\nsys.exit(cli.main(2, sys.argv[1:]))"
    path.write_text(yaml.safe_dump(content.content()))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size), "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code, "--config", str(path), *arguments],
            cwd=REPOSITORY,
            env={**os.environ, **settings, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(size)
    ]


def finish(processes: list[subprocess.Popen]) -> list[str]:
    said = [process.communicate(timeout=LIMIT_S)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(said)
    return said


def losses(out: Path) -> dict[int, float]:
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return {record["step"]: record["loss"] for record in map(json.loads, lines) if "loss" in record}


def wait_for(condition) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def one(release, alone, tmp_path_factory):
    out = tmp_path_factory.mktemp("one") / "run"
    assert Trainer(recipe(release, out), alone).run()
    return out


@pytest.fixture(scope="module")
def two(release, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    finish(start(recipe(release, folder / "run"), folder / "recipe.yaml"))
    return folder / "run"


def test_two_sharded_processes_have_the_losses_of_one(one, two):
    assert losses(two) == pytest.approx(losses(one), rel=1e-6)


def test_killed_and_resumed_is_undisturbed_to_the_bit(two, release, tmp_path):
    out = tmp_path / "run"
    content = recipe(release, out)
    processes = start(content, tmp_path / "recipe.yaml")
    wait_for(lambda: (out / "checkpoints/step-00000004").exists() and max(losses(out)) >= 6)
    for process in processes:
        process.kill()
        process.communicate()
    shutil.rmtree(out / "checkpoints/step-00000008", ignore_errors=True)  # if the kill came late
    said = finish(start(content, tmp_path / "recipe.yaml", "--resume"))
    assert "resumed at step 4" in said[0]
    assert losses(out) == losses(two)


def test_what_two_began_one_goes_on_with_the_same_data_and_noise(two, release, alone, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(two, out)
    shutil.rmtree(out / "checkpoints/step-00000008")
    trainer = Trainer(recipe(release, out), alone, resume=True)
    assert trainer.step == 4 and trainer.run()
    assert losses(out) == pytest.approx(losses(two), rel=1e-6)


def test_validation_and_samples_change_nothing_of_sharded_runs(one, two, release, tmp_path):
    validation = {"every": 4, "clips": 3, "quantiles": [0.5], **write_sampling(tmp_path / "sampling")}
    for dtype in ("float32", "bfloat16"):
        parallel = {"device": "cpu", "threads": 1, "dtype": dtype}
        if dtype == "float32":
            blind = two
        else:
            blind = tmp_path / "blind"
            finish(start(recipe(release, blind, parallel=parallel), tmp_path / "recipe.yaml"))
        out = tmp_path / dtype
        finish(start(recipe(release, out, parallel=parallel, validation=validation), tmp_path / "recipe.yaml"))
        assert losses(out) == losses(blind)
    alone = recipe(release, tmp_path / "alone", validation=validation)
    Trainer(alone, start_world(alone.parallel, stall_s=LIMIT_S)).run()
    assert validated(tmp_path / "float32") == pytest.approx(validated(tmp_path / "alone"), rel=1e-5)


def validated(out: Path) -> dict[int, float]:
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return {record["step"]: record["val/loss"] for record in map(json.loads, lines) if "val/loss" in record}


@pytest.mark.parametrize(
    ("parallel", "size"),
    [({"sequence": 2, "checkpointing": "full"}, 2), ({"replicate": 2, "micro_batch": 1}, 4)],
    ids=["sequence", "replicate and shard"],
)
def test_other_ways_to_spread_the_work_have_the_same_losses(release, tmp_path, parallel, size):
    changes = {
        "shares": {"t2av": 1, "tv2a": 1, "ti2av": 1, "tr2av": 1},
        "batch": 8,
        "validation": {"every": 4, "clips": 3, "quantiles": [0.5], **write_sampling(tmp_path / "sampling")},
    }
    content = recipe(release, tmp_path / "run", parallel={"device": "cpu", "threads": 1, **parallel}, **changes)
    finish(start(content, tmp_path / "recipe.yaml", size=size))
    single = recipe(release, tmp_path / "single", **changes)
    Trainer(single, start_world(single.parallel, stall_s=LIMIT_S)).run()
    for found in (losses, validated):
        assert found(tmp_path / "run") == pytest.approx(found(tmp_path / "single"), rel=1e-4)
    ours, theirs = (stored(tmp_path / run / "checkpoints/step-00000008") for run in ("run", "single"))
    counted = {name: int(value) for name, value in theirs.items() if name.endswith(".step")}
    assert {name: int(ours[name]) for name in counted} == counted  # no gradient is not one of zeros
    assert len(set(counted.values())) > 1  # TV2A has none for the end of the video stream
    made = [sorted(path.name for path in (tmp_path / run / "samples").glob("*/*.mp4")) for run in ("run", "single")]
    assert made[0] == made[1] == ["both.mp4"] * 2 + ["sound.mp4"] * 2


def test_a_signal_to_one_rank_stops_all_after_the_same_step(release, tmp_path):
    """It comes when rank 1 has finished its step: the others hear of it in the next."""
    out = tmp_path / "run"
    signalled = (
        "import signal\nfrom train.checkpoint import Checkpoints\npoll, polls = Checkpoints.poll, []\n"
        "def late(self):\n"
        "    polls.append(1)\n"
        "    if os.environ['RANK'] == '1' and len(polls) == 3: os.kill(os.getpid(), signal.SIGTERM)\n"
        "    poll(self)\nCheckpoints.poll = late"
    )
    content = recipe(release, out, steps=100_000, checkpoint={"every": 100_000})
    processes = start(content, tmp_path / "recipe.yaml", prelude=signalled)
    said = [process.communicate(timeout=LIMIT_S)[0] for process in processes]
    assert [process.returncode for process in processes] == [STOPPED] * 2, "\n".join(said)
    assert [path.name for path in whole_checkpoints(out / "checkpoints")] == ["step-00000000", "step-00000004"]


@pytest.mark.parametrize(
    ("frozen", "words"),
    [(1, "silent (dead or frozen): 1"), (0, "does not answer: its host, rank 0 or torchrun, is dead or frozen")],
    ids=["another", "the store's host"],
)
def test_a_frozen_rank_is_named(release, tmp_path, frozen, words):
    out = tmp_path / "run"
    content = recipe(release, out, steps=100_000, recovery={"stall_s": 10.0}, checkpoint={"every": 100_000})
    processes = start(content, tmp_path / "recipe.yaml")
    other = processes[1 - frozen]
    try:
        wait_for(lambda: (out / "metrics.jsonl").exists() and len(losses(out)) > 1)
        processes[frozen].send_signal(signal.SIGSTOP)
        said, _ = other.communicate(timeout=LIMIT_S)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert other.returncode == STUCK
    assert f"rank {1 - frozen}: stuck" in said and words in said


def test_blame_names_the_rank_that_lags():
    beats = {rank: {"step": 7, "phase": "backward", "seconds": 60.0, "at": 1000.0} for rank in range(4)}
    beats[2] |= {"phase": "data", "seconds": 61.0}
    said = blame(beats, 5, now=1001.0, silent_after_s=30).splitlines()
    assert said[0] == "ranks that are silent (dead or frozen): 4"
    assert said[1:] == [
        "in step 7, backward, for up to 60 s: ranks 0, 1, 3",
        "in step 7, data, for up to 61 s: ranks 2",
    ]
