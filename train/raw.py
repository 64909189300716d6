"""Clips that are encoded while they are read: for trying codecs and captions without storing latents first.

Every epoch encodes again, in the reading processes; with Wan's VAE that costs more than the step itself, so long runs
read what ``train.encode`` wrote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from corpus.loader import ATOM_COLUMNS, ClipDataset
from engine.config import load
from model.config import ModelConfig, Stream
from train.config import DataConfig
from train.data import TrainingClips
from train.encode_config import EncodeConfig
from train.encode_shard import Encoder, UnusableClip

_FORMAT = ("fps", "audio_rate")


class RawClips(TrainingClips):
    """The same samples as of latents that are stored in float32, made anew each time.

    Raises:
        ConfigError: no such configuration, or one that would have to measure statistics first.
        ValueError: as :class:`~train.data.TrainingClips`; a clip that cannot be encoded.
    """

    def __init__(
        self, config: DataConfig, model: ModelConfig, *, split: str, streams: Sequence[Stream], seed: int
    ) -> None:
        columns = (*ATOM_COLUMNS, *_FORMAT)
        super().__init__(config, model, split=split, streams=streams, seed=seed, members=None, columns=columns)
        encode = load(config.encode, EncodeConfig, [f"release={config.release}"])
        if encode.statistics.video or encode.statistics.audio:
            raise ValueError(f"{config.encode}: measured statistics need train.encode; name their files in the codecs")
        self._encoder = Encoder(encode)

    def tensors(self, number: int, epoch: int) -> Mapping[str, Tensor]:
        clip = ClipDataset.clip(self, number, epoch)
        if "ref.wav" in clip:  # the take that is drawn is the only one that is read
            clip["ref0.wav"] = clip["ref.wav"]
        fps, rate = (clip[name] for name in _FORMAT)
        try:
            prepared = self._encoder.prepare(clip, fps, rate)
        except UnusableClip as error:
            raise ValueError(f"clip {clip['key']} cannot be trained on: {error}") from None
        return self._encoder.encode(prepared, self._encoder.prompts(clip))
