"""Two ways to work through the work table with the same results: a loop in this process, or actor pools on Ray Data."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from engine.config import ExecutorConfig
from engine.guard import SetupError
from engine.runner import GroupRunner, RunSpec
from engine.specs import GroupSpec
from kit.errors import UserError
from kit.logs import quiet


class ClusterError(UserError):
    """Ray cannot be reached, or the cluster can never give what the pools ask for."""


def run_local(run: RunSpec, work: pa.Table) -> Iterator[int]:
    """Work through the table in this process; yields how many items each finished batch held."""
    runners = [GroupRunner(run, group) for group in run.groups]
    size = max(group.config.batch_size for group in run.groups)
    try:
        for start in range(0, len(work), size):
            batch = work.slice(start, size)
            for runner, group in zip(runners, run.groups, strict=True):
                piece = group.config.batch_size
                batch = pa.concat_tables(runner(batch.slice(at, piece)) for at in range(0, len(batch), piece))
            yield len(batch)
    finally:
        for runner in runners:
            runner.close()


def run_ray(run: RunSpec, work: pa.Table, config: ExecutorConfig) -> Iterator[int]:
    """Stream the table through one actor pool a group; yields how many items each finished batch held.

    What Ray Data is trusted with here is moving thin rows and keeping actors alive. Durability is the ledger's
    (its own checkpoint ignores in-memory sources and loses rows of failed fan-outs), and so is retrying
    (``max_errored_blocks`` drops whole blocks): a row that fails is an answer, never an exception.

    Raises:
        SetupError: a group cannot be set up on some worker.
        OSError: a worker cannot write its results (a full disk); what was written stays.
    """
    import ray  # costs a second to import, which the local executor and every --help do without
    import ray.data

    connect(config)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    size = run.groups[0].config.batch_size
    work = work.append_column("fault", pa.nulls(len(work), pa.string()))
    blocks = [work.slice(start, size).combine_chunks() for start in range(0, len(work), size)]
    dataset = ray.data.from_arrow(blocks)
    for group in run.groups:
        pool = group.config.pool
        dataset = dataset.map_batches(
            _Actor,
            fn_constructor_args=(run, group),
            batch_size=group.config.batch_size,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(
                min_size=pool.min_actors, max_size=pool.max_actors, max_tasks_in_flight_per_actor=2
            ),
            num_cpus=pool.cpus,
            num_gpus=pool.gpus or None,
        )
    # No operator after the pools: it would wait for a core that the actors hold, and progress would come at the end.
    for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
        if faults := [fault for fault in batch["fault"].to_pylist() if fault]:
            kind, message = json.loads(faults[0])
            raise SetupError(message) if kind == "setup" else OSError(message)
        yield len(batch)


def connect(config: ExecutorConfig) -> None:
    """Join the configured cluster, or start one on this machine; a Ray that is already connected is used.

    Raises:
        ClusterError: no cluster answers at the address.
    """
    import ray

    if ray.is_initialized():
        return
    quiet("ray", "ray.data")
    # Ray Data keeps an actor's arguments in its object store, which Ray then reports as an error at every start.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    options: dict[str, Any] = {"log_to_driver": True, "logging_level": logging.WARNING, "include_dashboard": False}
    try:
        if config.address == "local":
            ray.init(address="local", **options)
        else:
            options.pop("include_dashboard")
            ray.init(address=config.address, **options)
    except ConnectionError as error:
        raise ClusterError(
            f"no Ray cluster at {config.address!r} ({error}); start one (ray start --head), submit with ray job "
            "submit, or run on this machine with --set executor.address=local"
        ) from None


def cluster_resources(config: ExecutorConfig) -> dict[str, float]:
    """What the cluster has in all: ``CPU``, ``GPU``, ``memory``…

    Raises:
        ClusterError: no cluster answers at the address.
    """
    import ray

    connect(config)
    return ray.cluster_resources()


class _Actor:
    """A pool's worker: Ray Data builds one an actor.

    What stops a whole run (a group that cannot be set up, a full disk) travels to the driver as a value, because an
    exception loses its type and cause on the way through Ray Data.
    """

    def __init__(self, run: RunSpec, group: GroupSpec) -> None:
        self._runner = GroupRunner(run, group)

    def __call__(self, batch: pa.Table) -> pa.Table:
        if batch["fault"].null_count < len(batch):
            return batch
        try:
            return self._runner(batch)
        except SetupError as error:
            fault = json.dumps(["setup", str(error)])
        except OSError as error:
            fault = json.dumps(["io", str(error)])
        column = batch.schema.get_field_index("fault")
        return batch.set_column(column, "fault", pa.array([fault] * len(batch), pa.string()))

    def __del__(self) -> None:
        self._runner.close()
