"""What a run tells: plain lines, ``metrics.jsonl``, TensorBoard, wandb. Rank 0 writes; losses are of all ranks."""

from __future__ import annotations

import json
import logging
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
from train.config import Recipe
from train.speed import Speed

STREAMS: tuple[Stream, ...] = ("video", "audio")
TASK_NAMES = tuple(TASKS)
_logger = logging.getLogger(__name__)


class Clock:
    """Seconds by phase since the last :meth:`take`; of the host, so work queued on a GPU shows where it is awaited."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)
        self._begin = time.perf_counter()
        self._now = "start", self._begin

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        self._now = name, begin
        try:
            yield
        finally:
            end = time.perf_counter()
            self._seconds[name] += end - begin
            self._now = "between phases", end

    def now(self) -> tuple[str, float]:
        """The phase that is under way, and since how many seconds."""
        name, begin = self._now
        return name, time.perf_counter() - begin

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
        first: whether this is rank 0.
        resumed_at: steps that were done before.
    """

    def __init__(self, folder: Path, recipe: Recipe, speed: Speed, *, first: bool, resumed_at: int) -> None:
        self.clock, self.table, self.speed = Clock(), LossTable(recipe.log.sigma_bins), speed
        self._every, self._steps, self._first = recipe.log.every, recipe.steps, first
        self._path = folder / "metrics.jsonl"
        self._losses: list[float] = []
        self._lines = self._board = self._wandb = None
        self.rewind(resumed_at)
        if first and recipe.log.tensorboard:
            from torch.utils.tensorboard import SummaryWriter  # takes a second to import

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=resumed_at or None)
        if first and recipe.log.wandb:
            import wandb  # optional

            self._wandb = wandb.init(project=recipe.log.wandb, dir=str(folder), config=recipe.content(), resume="allow")

    def rewind(self, step: int) -> None:
        """Forget what was written of steps after ``step``: they will be made again."""
        self._losses.clear()
        self.table.take()
        if not self._first:
            return
        if self._lines:
            self._lines.close()
        if self._path.exists():
            lines = self._path.read_text("utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
            self._path.write_text("".join(kept), "utf-8")
        self._lines = self._path.open("a", encoding="utf-8")

    def step(self, step: int, task: Task, loss: float, values: Mapping[str, float]) -> None:
        """After every optimizer step, on every rank: ``step`` counts from 1, ``values`` are reported as they are."""
        self._losses.append(loss)
        if step % self._every and step != self._steps:
            return
        seconds, table = self.clock.take(), self.table.take()
        count = len(self._losses)
        mean = math.fsum(self._losses) / count
        self._losses.clear()
        if not self._first:
            return
        times = {f"time/{name}": value / count for name, value in seconds.items()}
        speed = self.speed.take(seconds["total"])
        streams = "  ".join(f"{name[5:]} {value:.4f}" for name, value in table.items() if name.count("/") == 2)
        waiting = seconds.get("data", 0.0) / seconds["total"]
        used = f", {speed['speed/mfu']:.1%} MFU" if "speed/mfu" in speed else ""
        _logger.info(
            f"step {step}/{self._steps}  loss {mean:.4f}  {streams}  norm {values['norm']:.3g}  lr {values['lr']:.3g}  "
            f"{1000 * times['time/total']:.0f} ms a step, {waiting:.1%} for data{used}"
        )
        self.write(step, {"loss": mean, "task": task.name, **values, **table, **times, **speed})

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
