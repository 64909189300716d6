"""What a recipe reads, in batches."""

from __future__ import annotations

from collections.abc import Sequence

from corpus.buckets import Buckets
from corpus.loader import ClipLoader
from model.config import ModelConfig, Stream
from train.config import DataConfig, Recipe
from train.data import LatentClips, Stack, TrainingClips
from train.raw import RawClips


def training_clips(
    config: DataConfig, model: ModelConfig, *, split: str, streams: Sequence[Stream], seed: int
) -> TrainingClips:
    """What the recipe reads: stored latents, or clips that are encoded while they are read.

    Raises:
        ValueError: see :class:`LatentClips` and :class:`train.raw.RawClips`.
    """
    if config.latents:
        return LatentClips(config, model, split=split, streams=streams, seed=seed)
    return RawClips(config, model, split=split, streams=streams, seed=seed)


def open_loader(recipe: Recipe, *, rank: int, world: int, pin_memory: bool = False) -> ClipLoader:
    """Endless batches of the recipe's training split, this rank's part of each.

    Raises:
        ValueError: see :func:`training_clips` and :class:`~corpus.loader.ClipLoader`.
    """
    data = recipe.data
    clips = training_clips(data, recipe.model, split=data.split, streams=recipe.streams, seed=recipe.seed)
    return ClipLoader(
        clips,
        batch=recipe.batch,
        seed=recipe.seed,
        buckets=Buckets(data.durations_s, data.aspects),
        rank=rank,
        world=world,
        workers=data.workers,
        window=data.window,
        collate=Stack(recipe.model),
        pin_memory=pin_memory,
        context="spawn" if data.encode else None,  # codecs may use a GPU
    )
