"""Settings of the executors: groups of stages, their pools of workers, and where they run."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from kit.config import Strict


class Pool(Strict):
    """Workers on Ray: how many, and what each one takes.

    Attributes:
        min_actors: workers that the run waits for before it starts.
        max_actors: most workers at a time.
        cpus: cores of one worker.
        gpus: GPUs of one worker; fractions share one.
    """

    min_actors: int = Field(1, ge=1)
    max_actors: int = Field(1, ge=1)
    cpus: float = Field(1.0, gt=0)
    gpus: float = Field(0.0, ge=0)


class GroupConfig(Strict):
    """Stages that share one decode of a clip and one pool of actors, in order.

    Attributes:
        name: by which ``--set groups.NAME.…`` finds the group.
        stages: settings of each stage, by the stage's name.
        pool: the group's workers on Ray, and what each one takes.
        batch_size: clips that are decoded and scored together and reach the ledger together.
        time_limit_s: seconds for one step of one clip: decoding, or one stage.
        memory_limit_gb: most memory of the whole guarded process.
    """

    name: str
    stages: dict[str, dict[str, Any]]
    pool: Pool = Pool()
    batch_size: int = Field(8, ge=1)
    time_limit_s: float = Field(120.0, gt=0)
    memory_limit_gb: float = Field(6.0, gt=0)


class ExecutorConfig(Strict):
    """Where the work runs.

    Attributes:
        kind: ``ray`` has pools of workers on a cluster, ``local`` is a loop in this process.
        address: of the Ray cluster; ``auto`` finds the one that this machine belongs to, ``local`` starts one here.
    """

    kind: str = Field("ray", pattern="^(ray|local)$")
    address: str = "auto"
    retry_budget: int = Field(2, ge=1, description="attempts at a clip that fails before it is quarantined")
