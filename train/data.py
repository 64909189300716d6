"""Training samples of a release: a clip's latents, cut to its bucket, with one reference voice and one prompt variant.

Latents come from a :class:`LatentSource`: :class:`LatentReader` reads those that ``train.encode`` stored beside the
release, :class:`train.on_the_fly.OnTheFlyEncoder` encodes the clip when it is read.

A stored clip's member ``KEY.latents.safetensors`` holds ``video`` (C, F, h, w), ``audio`` (C, L), ``ref0`` … ``ref2``
(C, L) and ``text.<variant>`` (rows, D), normalised, in any floating dtype. The variant ``null`` is the empty prompt.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from model.config import ModelConfig, Stream
from train.config import NULL_TEXT, DataConfig
from train.steps import by_share
from unitalking_data.dataset import ClipDataset
from unitalking_data.permutation import hash64
from unitalking_data.prompts import draw_take

MEMBER = "latents.safetensors"
REFERENCE = "ref"  # name of the take that was drawn, among a clip's tensors


class LatentSource(Protocol):
    """Gives the latents and text embeddings of a release's clips.

    Attributes:
        clips: the clips, by number.
    """

    clips: ClipDataset

    def tensors(self, number: int, epoch: int) -> Mapping[str, Tensor]:
        """A clip's tensors by name: ``video``, ``audio``, ``text.<variant>`` and, if the clip has reference voices,
        ``ref``: the take drawn for ``epoch``. Shapes are those at the top of this module.

        Raises:
            ValueError: the clip's latents cannot be read or made.
        """


class TrainingClips:
    """Samples for the trainer: dicts with one clip's part of :class:`train.batch.Batch`.

    Prompt variant and reference take are drawn by hash of (key, epoch, seed). A clip without a reference, or without a
    prompt that the recipe gives a share, is trained on with the empty one.

    Args:
        source: of the latents.
        streams: that are trained; without ``video`` a sample has none.

    Attributes:
        clips: the clips of the source; ``index``, ``release``, ``split`` and ``seed`` are theirs.

    Raises:
        ValueError: the configuration has no default prompts.
    """

    def __init__(
        self, source: LatentSource, config: DataConfig, model: ModelConfig, *, streams: Sequence[Stream]
    ) -> None:
        self.clips = clips = source.clips
        self.index, self.release, self.split, self.seed = clips.index, clips.release, clips.split, clips.seed
        self._source, self._config, self._model = source, config, model
        self._with_video = "video" in streams
        self._texts = {"default": {}, **config.texts}
        if not self._texts["default"]:
            raise ValueError("data.texts: there is no `default`")

    def clip(self, number: int, epoch: int) -> dict[str, Any]:
        """Clip ``number`` (0…len−1) with the prompt variant and the take of ``epoch``.

        Raises:
            ValueError: its latents lack a part, have other channels than the model, or cannot be read or made.
        """
        tensors = self._source.tensors(number, epoch)
        key = self.index.keys[number].as_py()
        self._check(key, tensors)
        frames, length = bounds(self._config, self._model, float(self.index.duration_s[number]))
        reference = tensors[REFERENCE].T[: self._model.reference_len] if REFERENCE in tensors else None
        return {
            "name": f"{key}|{epoch}",
            "video": tensors["video"][:, :frames] if self._with_video else None,
            "audio": tensors["audio"][:, :length],
            "reference": reference,
            "texts": {table: tensors[f"text.{self._variant(table, tensors, key, epoch)}"] for table in self._texts},
            "null_text": tensors[f"text.{NULL_TEXT}"],
        }

    def _check(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        model = self._model
        channels = {"audio": model.audio_channels, "video": model.video_channels}
        wanted = {"audio", f"text.{NULL_TEXT}"} | ({"video"} if self._with_video else set())
        for name in wanted:
            if name not in tensors:
                raise ValueError(f"latents of {key} lack {name}: encode the release again")
            if name in channels and tensors[name].shape[0] != channels[name]:
                raise ValueError(
                    f"{name} latents of {key} have {tensors[name].shape[0]} channels, the model "
                    f"{channels[name]}: give the recipe the model that fits the codec"
                )

    def _variant(self, table: str, tensors: Mapping[str, Tensor], key: str, epoch: int) -> str:
        """Drawn by share among the variants that the clip has."""
        shares = self._texts[table]
        there = {name: share for name, share in shares.items() if share and f"text.{name}" in tensors}
        if not there:
            named = ", ".join(shares)
            warnings.warn(f"clips without the prompts of data.texts.{table} ({named}) get the empty one", stacklevel=2)
            return NULL_TEXT
        return by_share(there, hash64("text", table, key, epoch, self.seed) / 2**64)


def bounds(data: DataConfig, model: ModelConfig, duration_s: float) -> tuple[int | None, int | None]:
    """Latent frames and audio latents that its bucket leaves of a clip; None for all."""
    fitting = [d for d in data.durations_s if d <= duration_s + 1e-3]
    if not fitting:
        return None, None
    frames = 1 + (int(fitting[-1] * model.fps + 1e-6) - 1) // model.temporal_stride
    seconds = (1 + (frames - 1) * model.temporal_stride) / model.fps
    return frames, math.ceil(seconds * model.audio_latent_rate - 1e-6)


class LatentReader:
    """Latents that ``train.encode`` stored.

    Args:
        clips: the clips as they are stored, with their member ``latents.safetensors``.
        in_memory: keep what has been read.
    """

    def __init__(self, clips: ClipDataset, *, in_memory: bool = False) -> None:
        self.clips = clips
        self._kept: dict[int, dict[str, Tensor]] | None = {} if in_memory else None

    def tensors(self, number: int, epoch: int) -> Mapping[str, Tensor]:
        """See :class:`LatentSource`."""
        tensors = self._read(number, epoch)
        takes = sorted(name for name in tensors if name.startswith(REFERENCE))
        if not takes:
            return tensors
        key = self.clips.index.keys[number].as_py()
        take = draw_take(len(takes), key=key, epoch=epoch, seed=self.clips.seed)
        return {**tensors, REFERENCE: tensors[takes[take]]}

    def _read(self, number: int, epoch: int) -> dict[str, Tensor]:
        if self._kept is not None and number in self._kept:
            return self._kept[number]
        content = self.clips.clip(number, epoch)
        try:
            tensors = safetensors.torch.load(content[MEMBER])
        except SafetensorError as error:
            raise ValueError(f"latents of {content['key']} are not readable: {error}") from None
        if self._kept is not None:
            self._kept[number] = tensors
        return tensors
