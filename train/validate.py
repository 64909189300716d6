"""Losses at fixed noise levels on fixed clips with fixed noise, and samples by the ordinary sampler.

Nothing here draws from a generator that training uses, so that a run is the same with and without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from kit.config import ConfigError, load
from kit.errors import UserError
from model.generate import Sampler
from model.request import Request, read_requests
from model.schedule import shift_sigma
from model.settings import SampleConfig
from model.tasks import TASKS
from model.transformer import UniTalking
from train.batch import Batch, Collate
from train.config import Recipe
from train.loading import training_clips
from train.loss import add_noise_at, losses
from train.metrics import STREAMS
from train.parallel import World, reshard
from train.step_random import StepRandom
from unitalking_data.buckets import Buckets

SEED = 20_240_601  # of the noise; every run is measured by the same
BATCH = 8


class Validation:
    """
    Args:
        model: that will be measured; here only whether the configured sampler fits it.

    Raises:
        ConfigError: requests or a sampler's configuration that cannot be used.
        ValueError: no such split, or clips that are in no bucket.
    """

    def __init__(self, recipe: Recipe, world: World, model: UniTalking) -> None:
        self._recipe, self._config, self._world = recipe, recipe.validation, world
        self._clips = training_clips(
            recipe.data, recipe.model, split=self._config.split, streams=recipe.streams, seed=SEED
        )
        self._collate, self._parts = Collate(recipe.model), self._cut()
        self._sampling: SampleConfig | None = None
        if self._config.sample:
            try:
                self._sampling = load(self._config.sample, SampleConfig, ["weights=null", f"device={world.device}"])
                self._requests = self._read_requests(Sampler(self._sampling, model=model))
            except (UserError, OSError) as error:
                raise ConfigError(f"validation.sample: {error}") from None

    def _cut(self) -> list[list[int]]:
        """The first clips of the split, in batches of a bucket; the same on any number of ranks."""
        data, index = self._recipe.data, self._clips.index
        _, buckets = Buckets(data.durations_s, data.aspects).assign(index.duration_s, index.width, index.height)
        size = min(BATCH, self._recipe.parallel.micro_batch or BATCH)
        by_bucket: dict[int, list[int]] = {}
        for clip, bucket in enumerate(buckets[: self._config.clips].tolist()):
            by_bucket.setdefault(bucket, []).append(clip)
        return [clips[at : at + size] for clips in by_bucket.values() for at in range(0, len(clips), size)]

    def _batches(self) -> Iterator[tuple[Batch, float]]:
        """This rank's, and what each counts: every rank has as many, for each has a part of the weights."""
        world = self._world
        for at in range(world.data_rank, -(-len(self._parts) // world.data_size) * world.data_size, world.data_size):
            clips = self._parts[at % len(self._parts)]
            yield self._collate([self._clips.clip(clip, 0) for clip in clips]), float(at < len(self._parts))

    @torch.no_grad()
    def measure(self, model: UniTalking) -> tuple[float, dict[str, float]]:
        """The mean over tasks and noise levels of the summed losses, and ``val/t2av/video/0.83`` of each level."""
        recipe, config, world = self._recipe, self._config, self._world
        levels = shift_sigma(torch.tensor(config.quantiles, dtype=torch.float64), recipe.noise.shift).float()
        tasks = [TASKS[name] for name in recipe.tasks]
        sums = torch.zeros(2, len(tasks), len(STREAMS), len(levels), dtype=torch.float64)
        model.eval()
        for batch, counts in self._batches():
            batch = batch.to(world.device)
            rng = StepRandom(SEED, 0, batch.names, world.device)
            for t, task in enumerate(tasks):
                for i, level in enumerate(levels):
                    sigma = level.expand(len(batch.names))
                    found = losses(model, add_noise_at(batch, task, rng, {"video": sigma, "audio": sigma}))
                    for stream, loss in found.items():
                        sums[0, t, STREAMS.index(stream), i] += counts * float(loss.double().sum())
                        sums[1, t, STREAMS.index(stream), i] += counts * len(loss)
        model.train()
        reshard(model)
        if world.size > 1:
            dist.all_reduce(sums)
        return _means(sums, [task.name for task in tasks], levels)

    def sample(self, model: UniTalking, folder: Path) -> None:
        """Write the samples of the configured requests. All ranks take part, for each has a part of the weights."""
        if self._sampling is None:
            return
        sampler = Sampler(self._sampling, model=model.eval())
        for batch in sampler.batches(self._requests):
            for sample in sampler.generate_batch(batch):
                if self._world.first:
                    sample.save(folder, sampler.made_by(sample.request))
        model.train()
        reshard(model)

    def _read_requests(self, sampler: Sampler) -> list[Request]:
        """Those that a model of the recipe's streams can have."""
        requests = read_requests(Path(self._config.requests), self._sampling.request_defaults(), sampler.shape)
        return [request for request in requests if set(TASKS[request.task].streams) <= set(self._recipe.streams)]


def _means(sums: Tensor, tasks: list[str], levels: Tensor) -> tuple[float, dict[str, float]]:
    """Of ``sums`` (losses and counts, tasks, streams, levels)."""
    found, totals = {}, []
    for t, task in enumerate(tasks):
        for i, level in enumerate(levels.tolist()):
            total = 0.0
            for s, stream in enumerate(STREAMS):
                if sums[1, t, s, i]:
                    found[f"val/{task}/{stream}/{level:.2f}"] = mean = float(sums[0, t, s, i] / sums[1, t, s, i])
                    total += mean
            totals.append(total)
    return sum(totals) / len(totals), found
