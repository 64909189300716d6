"""Losses at fixed noise levels on fixed clips with fixed noise, and samples by the ordinary sampler.

Nothing here draws from a generator that training uses, so that a run is the same with and without it.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from corpus.buckets import Buckets
from corpus.loader import ClipLoader
from engine.config import ConfigError
from model.generate import Sampler
from model.request import RequestError, read_requests
from model.schedule import shift_sigma
from model.settings import SampleConfig
from model.tasks import TASKS
from model.transformer import UniTalking
from train.config import Recipe
from train.data import Stack
from train.loading import training_clips
from train.loss import losses, noised_at
from train.metrics import STREAMS
from train.noise import Draws
from train.parallel import World

SEED = 20_240_601  # of the noise; every run is measured by the same
BATCH = 8


class Validation:
    """
    Raises:
        ConfigError: requests or a sampler's configuration that cannot be used.
        ValueError: no such split.
    """

    def __init__(self, recipe: Recipe, world: World) -> None:
        self._recipe, self._config, self._world = recipe, recipe.validation, world
        self._clips = training_clips(
            recipe.data, recipe.model, split=self._config.split, streams=recipe.streams, seed=SEED
        )
        self._sampling: SampleConfig | None = None
        if self._config.sample:
            try:
                self._sampling = SampleConfig.read(self._config.sample, weights=None, device=str(world.device))
            except RequestError as error:
                raise ConfigError(f"validation.sample: {error}") from None

    @torch.no_grad()
    def measure(self, model: UniTalking) -> tuple[float, dict[str, float]]:
        """The mean over tasks and noise levels of the summed losses, and ``val/t2av/video/0.83`` of each level."""
        recipe, config, world = self._recipe, self._config, self._world
        each = min(BATCH, -(-config.clips // world.data_size))
        loader = ClipLoader(
            self._clips,
            batch=each * world.data_size,
            rank=world.data_rank,
            world=world.data_size,
            buckets=Buckets(recipe.data.durations_s, recipe.data.aspects),
            shuffled=False,
            collate=Stack(recipe.model),
        )
        levels = shift_sigma(torch.tensor(config.quantiles, dtype=torch.float64), recipe.noise.shift).float()
        tasks = [TASKS[name] for name in recipe.tasks]
        sums = torch.zeros(2, len(tasks), len(STREAMS), len(levels), dtype=torch.float64)
        model.eval()
        for _, read in zip(range(-(-config.clips // (each * world.data_size))), loader):
            batch = read.samples.to(world.device)
            draws = Draws(SEED, 0, batch.names, world.device)
            for t, task in enumerate(tasks):
                for i, level in enumerate(levels):
                    sigma = level.expand(len(batch.names))
                    found = losses(model, noised_at(batch, task, draws, {"video": sigma, "audio": sigma}))
                    for stream, loss in found.items():
                        sums[0, t, STREAMS.index(stream), i] += float(loss.double().sum())
                        sums[1, t, STREAMS.index(stream), i] += len(loss)
        model.train()
        if world.size > 1:
            dist.all_reduce(sums)
        return _means(sums, [task.name for task in tasks], levels)

    def sample(self, model: UniTalking, folder: Path) -> None:
        """Write the samples of the configured requests. All ranks take part, for each has a part of the weights."""
        if self._sampling is None:
            return
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        sampler = Sampler(self._sampling, model=model)
        requests = read_requests(Path(self._config.requests), self._sampling.request_defaults(), sampler.shape)
        try:
            for batch in sampler.batches([request for request in requests if self._can(request.task)]):
                for sample in sampler.generate_batch(batch):
                    if self._world.first:
                        sample.save(folder, sampler.made_by(sample.request))
        finally:  # a sampler freezes the model it is given
            for parameter in trained:
                parameter.requires_grad_(True)
            model.train()

    def _can(self, task: str) -> bool:
        return set(TASKS[task].streams) <= set(self._recipe.streams)


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
