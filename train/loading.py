"""What a recipe reads, in batches."""

from __future__ import annotations

from collections.abc import Sequence

from kit.config import load
from model.config import ModelConfig, Stream
from train.batch import Collate
from train.config import DataConfig, Recipe
from train.data import MEMBER, LatentReader, LatentSource, TrainingClips
from train.encode_config import EncodeConfig
from train.encode_shard import CLIP_COLUMNS, Encoder
from train.on_the_fly import OnTheFlyEncoder
from unitalking_data.buckets import Buckets
from unitalking_data.dataset import ClipDataset
from unitalking_data.loader import ClipLoader


def training_clips(
    config: DataConfig, model: ModelConfig, *, split: str, streams: Sequence[Stream], seed: int
) -> TrainingClips:
    """What the recipe reads: stored latents, or clips that are encoded when they are read.

    Raises:
        ConfigError: no such configuration of ``train.encode``.
        ValueError: as :class:`~unitalking_data.dataset.ClipDataset` and :class:`~train.data.TrainingClips`; an encoding
            that would have to measure statistics first.
    """
    return TrainingClips(_latent_source(config, split, seed), config, model, streams=streams)


def _latent_source(config: DataConfig, split: str, seed: int) -> LatentSource:
    clips = ClipDataset(
        config.release,
        split,
        latents=config.latents,
        members=[MEMBER] if config.latents else None,
        prompts=None,
        columns=() if config.latents else CLIP_COLUMNS,
        seed=seed,
        cache=config.cache,
        cache_bytes=int(config.cache_gb * 1e9),
    )
    if config.latents:
        return LatentReader(clips, in_memory=config.in_memory)
    encode = load(config.encode, EncodeConfig, [f"release={config.release}"])
    if encode.statistics.video or encode.statistics.audio:
        raise ValueError(f"{config.encode}: measured statistics need train.encode; name their files in the codecs")
    return OnTheFlyEncoder(clips, Encoder(encode))


def open_loader(recipe: Recipe, *, rank: int, world: int, pin_memory: bool = False) -> ClipLoader:
    """Endless batches of the recipe's training split, this rank's part of each.

    Raises:
        ConfigError, ValueError: see :func:`training_clips` and :class:`~unitalking_data.loader.ClipLoader`.
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
        collate=Collate(recipe.model),
        pin_memory=pin_memory,
        context="spawn" if data.encode else None,  # codecs may use a GPU
    )
