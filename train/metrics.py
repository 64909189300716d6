"""What a run tells: plain lines, ``metrics.jsonl``, TensorBoard, wandb. Rank 0 writes; losses are of all ranks."""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from model.config import Stream
from model.tasks import TASKS, Task
from train.config import LogConfig

STREAMS: tuple[Stream, ...] = ("video", "audio")
TASK_NAMES = tuple(TASKS)


class Clock:
    """Seconds by phase since the last :meth:`take`; of the host, so work queued on a GPU shows where it is awaited."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)
        self._begin = time.perf_counter()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] += time.perf_counter() - begin

    def take(self) -> dict[str, float]:
        """Seconds of each phase, and of everything as ``total``."""
        now = time.perf_counter()
        taken = {**self._seconds, "total": now - self._begin}
        self._seconds.clear()
        self._begin = now
        return taken


class LossTable:
    """Sums of losses by task, stream and bin of the noise level."""

    def __init__(self, bins: int) -> None:
        self._bins = bins
        self._sums = torch.zeros(2, len(TASK_NAMES), len(STREAMS), bins, dtype=torch.float64)  # losses, counts

    def add(self, task: Task, losses: Mapping[Stream, Tensor], sigmas: Mapping[Stream, Tensor]) -> None:
        """Losses and noise levels (B,) of each stream, on the CPU."""
        for stream, loss in losses.items():
            sums = self._sums[:, TASK_NAMES.index(task.name), STREAMS.index(stream)]
            bins = (sigmas[stream] * self._bins).long().clamp(max=self._bins - 1)
            sums[0].index_add_(0, bins, loss.double())
            sums[1].index_add_(0, bins, torch.ones(len(loss), dtype=torch.float64))

    def take(self) -> dict[str, float]:
        """Means over all ranks since the last call: ``loss/t2av/video``, and ``loss/t2av/video/0.4-0.6`` of a bin."""
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(self._sums)
        sums, counts = self._sums.tolist()
        self._sums.zero_()
        found = {}
        for task, by_stream, counted in zip(TASK_NAMES, sums, counts):
            for stream, values, numbers in zip(STREAMS, by_stream, counted):
                if sum(numbers):
                    found[f"loss/{task}/{stream}"] = sum(values) / sum(numbers)
                for i, (value, number) in enumerate(zip(values, numbers)):
                    if number:
                        band = f"{i / self._bins:.2g}-{(i + 1) / self._bins:.2g}"
                        found[f"loss/{task}/{stream}/{band}"] = value / number
        return found


class Metrics:
    """Collects steps and reports every ``config.every`` of them.

    Args:
        folder: for ``metrics.jsonl`` and ``tensorboard/``.
        content: the recipe, for wandb.
    """

    def __init__(
        self, folder: Path, config: LogConfig, content: Mapping[str, Any], *, first: bool, steps: int, resumed_at: int
    ) -> None:
        self.clock, self.table = Clock(), LossTable(config.sigma_bins)
        self._config, self._first, self._steps = config, first, steps
        self._losses: list[float] = []
        self._lines = self._board = self._wandb = None
        if not first:
            return
        self._lines = _from_step(folder / "metrics.jsonl", resumed_at).open("a", encoding="utf-8")
        if config.tensorboard:
            from torch.utils.tensorboard import SummaryWriter  # takes a second to import

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=resumed_at or None)
        if config.wandb:
            import wandb  # optional

            self._wandb = wandb.init(project=config.wandb, dir=str(folder), config=dict(content), resume="allow")

    def step(self, step: int, task: Task, loss: float, values: Mapping[str, float]) -> None:
        """After every optimizer step, on every rank: ``step`` counts from 1, ``values`` are reported as they are."""
        self._losses.append(loss)
        if step % self._config.every and step != self._steps:
            return
        seconds, table = self.clock.take(), self.table.take()
        count = len(self._losses)
        mean = math.fsum(self._losses) / count
        self._losses.clear()
        if not self._first:
            return
        shares = {f"time/{name}": value / count for name, value in seconds.items()}
        streams = "  ".join(f"{name[5:]} {value:.4f}" for name, value in table.items() if name.count("/") == 2)
        waiting = seconds.get("data", 0.0) / seconds["total"]
        print(
            f"step {step}/{self._steps}  loss {mean:.4f}  {streams}  norm {values['norm']:.3g}  lr {values['lr']:.3g}  "
            f"{1000 * shares['time/total']:.0f} ms a step, {waiting:.1%} for data",
            flush=True,
        )
        self.write(step, {"loss": mean, "task": task.name, **values, **table, **shares})

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """One record of everything, on rank 0."""
        if not self._first:
            return
        self._lines.write(json.dumps({"step": step, **values}) + "\n")
        self._lines.flush()
        numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
        if self._board:
            for name, value in numbers.items():
                self._board.add_scalar(name, value, step)
        if self._wandb:
            self._wandb.log(numbers, step=step)

    def close(self) -> None:
        for sink in (self._lines, self._board):
            if sink:
                sink.close()
        if self._wandb:
            self._wandb.finish()


def mean_loss(losses: Sequence[Tensor]) -> Tensor:
    """The optimizer's loss of per-sample losses: averaged within each modality, then summed."""
    return sum(loss.mean() for loss in losses)


def _from_step(path: Path, step: int) -> Path:
    """The file of lines without those of steps after ``step``, which will be made again."""
    if path.exists():
        lines = path.read_text("utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        path.write_text("".join(kept), "utf-8")
    return path
