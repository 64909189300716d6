"""A curation of real clips on Ray, killed again and again, beside an undisturbed one.

The same clips are curated twice on one Ray head: undisturbed, and with SIGKILL of the driver, of a Ray worker or of a
guarded process at random moments, started again after each. Every score table and the verdicts must be equal row for
row, the measured times apart.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pyarrow as pa

from benchmarks.machine import headline
from curation.config import CurationConfig
from kit import cli
from kit.cli import Command, ConfigFile, Program, argument
from kit.errors import Fault
from unitalking_data.storage import Store

MEASURED = ("seconds", "cpu_seconds", "open_seconds", "peak_memory", "bytes_read")
VICTIMS = {"driver": "curation run", "worker": "ray::MapWorker", "guarded": "engine.guard"}


def main(arguments: Sequence[str] | None = None) -> int:
    return cli.run(PROGRAM, arguments)


def _benchmark(options: argparse.Namespace) -> int:
    print(headline("benchmarks.kills"))
    import ray

    head = ray.init(address="local", num_cpus=os.cpu_count(), include_dashboard=False, log_to_driver=False)
    settings = [f"listing.inputs=['{options.clips}']", f"executor.address={head.address_info['address']}"]
    with tempfile.TemporaryDirectory() as folder:
        quiet, shaken = Path(folder) / "undisturbed", Path(folder) / "killed"
        command = [sys.executable, "-m", "curation", "run", "--config", options.config]
        command += [part for setting in [*settings, *options.overrides] for part in ("--set", setting)]
        began = time.perf_counter()
        _start(command, quiet).wait()
        seconds = time.perf_counter() - began
        print(f"undisturbed: {seconds:.0f} s")
        killed = _shake(command, shaken, options.kills, seconds, random.Random(options.seed))
        print(f"killed: {', '.join(f'{count} × {kind}' for kind, count in killed.items())}")
        different = _compare(Store(quiet), Store(shaken))
    ray.shutdown()
    return 1 if different else 0


def _start(command: list[str], root: Path) -> subprocess.Popen:
    return subprocess.Popen([*command, "--set", f"root={root}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _shake(command: list[str], root: Path, kills: int, seconds: float, moments: random.Random) -> dict[str, int]:
    """Kill until enough victims were found alive, then let the run end."""
    done = dict.fromkeys(VICTIMS, 0)
    driver = _start(command, root)
    while sum(done.values()) < kills:
        victim = moments.choice(list(VICTIMS))
        time.sleep(moments.uniform(0, seconds / 3))
        if driver.poll() is not None:
            raise Fault("the run ended before it could be killed as often as asked: give it more clips")
        if victim == "driver":
            driver.kill()
            driver.wait()
            driver = _start(command, root)
        elif not _kill(VICTIMS[victim]):
            continue
        done[victim] += 1
    driver.wait()
    if _start(command, root).wait() != 0:
        raise Fault("the last continuation failed")
    return done


def _kill(pattern: str) -> bool:
    for process in psutil.process_iter(["cmdline"]):
        if pattern in " ".join(process.info["cmdline"] or ()):
            os.kill(process.pid, signal.SIGKILL)
            return True
    return False


def _compare(one: Store, other: Store) -> int:
    """Print a line a table; how many differ."""
    stages = [(stage, version) for stage in one.folders("scores") for version in one.folders(f"scores/{stage}")]
    tables = [f"scores/{stage}/{version}" for stage, version in stages]
    different = 0
    for name in [*tables, "verdicts.parquet"]:
        mine, theirs = _rows(one, name), _rows(other, name)
        equal = mine.equals(theirs)
        different += not equal
        print(f"  {name:44}{len(mine):6} rows  {'equal' if equal else f'DIFFERENT ({len(theirs)} rows)'}")
    return different


def _rows(store: Store, name: str) -> pa.Table:
    """A table without what is measured anew by every run."""
    table = store.read_table([name] if name.endswith(".parquet") else store.files(name))
    return table.drop_columns([c for c in MEASURED if c in table.column_names]).sort_by("key")


PROGRAM = Program(
    "python -m benchmarks.kills",
    "Curate the same clips undisturbed and with kills at random moments; the tables must be equal row for row.",
    Command(
        _benchmark,
        "kill and compare",
        ["python -m benchmarks.kills --clips DIR", "python -m benchmarks.kills --clips DIR --kills 30 --seed 1"],
        [
            argument("--clips", help="folder of videos", required=True),
            argument("--kills", help="how often to kill", type=int, default=10),
            argument("--seed", help="of the moments and victims", type=int, default=0),
        ],
        ConfigFile(CurationConfig, "configs/profiles/*.yaml", default="configs/profiles/cpu.yaml"),
    ),
)

if __name__ == "__main__":
    sys.exit(main())
