"""SIGKILL of the driver and of workers at random moments: the continued run equals an undisturbed one, row for row."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow as pa
import pytest

from engine.config import ExecutorConfig
from engine.jobs import execute
from tests.engine.drive import ITEMS, run_spec

MEASURED = ["seconds", "cpu_seconds", "open_seconds", "peak_memory", "bytes_read"]


def tables(root: Path) -> dict[str, pa.Table]:
    """Every stage's table as it lies on disk after compaction, without what is measured anew by every run."""
    run, answer = run_spec(root), {}
    ledger = run.ledger
    for group in run.groups:
        for spec in group.stages:
            table = ledger.store.read_table(ledger.store.files(ledger.folder(spec)))
            answer[spec.name] = table.drop_columns(MEASURED).sort_by("key")
    return answer


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, pa.Table]:
    root = tmp_path_factory.mktemp("undisturbed") / "run"
    execute(run_spec(root), ITEMS, ExecutorConfig(kind="local"), "items", lambda line: None)
    return tables(root)


def start(root: Path, kind: str, address: str = "local") -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.engine.drive", str(root), kind, address]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def rows_done(root: Path) -> int:
    run = run_spec(root)
    ledger, spec = run.ledger, run.groups[0].stages[1]
    return len(ledger.store.files(ledger.folder(spec)))


def wait_for_progress(root: Path, driver: subprocess.Popen, seconds: float) -> None:
    """Let the driver score something new, then ``seconds`` more; or let it end."""
    before = rows_done(root)
    while driver.poll() is None and rows_done(root) <= before:
        time.sleep(0.02)
    time.sleep(seconds)


def test_the_local_driver_killed_at_ten_random_moments(tmp_path: Path, undisturbed):
    moments, kills, number = random.Random(7), 0, 0
    while kills < 10:
        root = tmp_path / f"run-{number}"
        driver = start(root, "local")
        wait_for_progress(root, driver, moments.uniform(0, 0.15))
        if driver.poll() is None:
            driver.kill()
            kills += 1
        elif driver.wait() == 0:  # it had come to its end: take another run apart
            assert tables(root) == undisturbed
            number += 1
        driver.wait()
    root = tmp_path / f"run-{number}"
    assert start(root, "local").wait() == 0
    assert tables(root) == undisturbed


@pytest.fixture(scope="module")
def cluster():
    """A Ray head of its own, which outlives the drivers that are killed."""
    import ray

    started = ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield started.address_info["address"]
    ray.shutdown()


def test_ray_driver_and_workers_killed_at_random_moments(tmp_path: Path, undisturbed, cluster):
    root, moments = tmp_path / "run", random.Random(11)
    victims = ["driver", "worker", "guarded", "worker", "driver"]
    driver = start(root, "ray", cluster)
    for victim in victims:
        if driver.poll() is not None:
            driver = start(root, "ray", cluster)
        wait_for_progress(root, driver, moments.uniform(0, 0.3))
        if victim == "driver":
            driver.kill()
            driver.wait()
        else:
            kill_one("ray::MapWorker" if victim == "worker" else "engine.guard")
    if driver.poll() is None:
        driver.wait(timeout=120)
    assert start(root, "ray", cluster).wait(timeout=120) == 0
    assert tables(root) == undisturbed


def kill_one(pattern: str) -> None:
    for process in psutil.process_iter(["cmdline"]):
        if pattern in " ".join(process.info["cmdline"] or ()):
            os.kill(process.pid, signal.SIGKILL)
            return
