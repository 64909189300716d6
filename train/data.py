"""Batches of latents: what ``train.encode`` wrote beside a release (or :mod:`train.raw` makes of clips while they are
read), cut to their bucket and stacked.

A clip's member ``KEY.latents.safetensors`` holds ``video`` (C, F, h, w), ``audio`` (C, L), ``ref0`` … ``ref2`` (C, L)
and ``text.<variant>`` (rows, D), normalised, in any floating dtype. The variant ``null`` is the empty prompt.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor

from corpus.loader import ClipDataset
from corpus.permutation import hash64
from corpus.prompts import draw_take
from model.config import ModelConfig, Stream
from train.config import NULL_TEXT, DataConfig
from train.schedule import by_share

MEMBER = "latents.safetensors"
INLINE_BYTES = 4 << 20


class Batch(NamedTuple):
    """Samples of one rank, of one shape.

    Attributes:
        names: key and epoch of each sample, which is what its noise is keyed by.
        video: (B, Cv, F, h, w), None where only sound is trained.
        audio: (B, Ca, L), zeros past a sample's length.
        audio_lengths: int64 (B,), None where all are L.
        reference: (B, R, Ca) the drawn reference voice, zeros past its end; all zeros, which is the null reference, for
            a clip without one.
        texts: (B, text_len, D) for each table of :attr:`~train.config.DataConfig.texts`.
        null_text: (B, text_len, D), the empty prompt.
    """

    names: list[str]
    video: Tensor | None
    audio: Tensor
    audio_lengths: Tensor | None
    reference: Tensor
    texts: dict[str, Tensor]
    null_text: Tensor

    def to(self, device: torch.device) -> Batch:
        """On the device, latents and texts as float32."""

        def move(x: Any) -> Any:
            if isinstance(x, Tensor):
                x = x.to(device, non_blocking=True)
                return x.float() if x.is_floating_point() else x
            return {name: move(value) for name, value in x.items()} if isinstance(x, dict) else x

        return Batch(*map(move, self))

    def __reduce__(self) -> tuple[Any, ...]:
        """From a reading process: a small batch as bytes, for every tensor in shared memory costs two milliseconds."""
        tensors = [x for x in (*self[1:5], *self.texts.values(), self.null_text) if x is not None]
        if sum(x.nbytes for x in tensors) > INLINE_BYTES:
            return Batch, tuple(self)
        return _from_bytes, ([_to_bytes(x) for x in self],)

    def part(self, begin: int, end: int) -> Batch:
        """Samples ``begin`` … ``end``."""

        def cut(x: Any) -> Any:
            if isinstance(x, dict):
                return {name: value[begin:end] for name, value in x.items()}
            return None if x is None else x[begin:end]

        return Batch(*map(cut, self))

    def text(self, task: str) -> Tensor:
        return self.texts.get(task, self.texts["default"])


class _Bytes(NamedTuple):
    """A tensor to be pickled as it is."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    data: np.ndarray


def _to_bytes(x: Any) -> Any:
    if isinstance(x, Tensor):
        return _Bytes(tuple(x.shape), x.dtype, x.contiguous().flatten().view(torch.uint8).numpy())
    return {name: _to_bytes(value) for name, value in x.items()} if isinstance(x, dict) else x


def _from_bytes(fields: Sequence[Any]) -> Batch:
    def tensor(x: Any) -> Any:
        if isinstance(x, _Bytes):
            return torch.from_numpy(x.data).view(x.dtype).view(x.shape)
        return {name: tensor(value) for name, value in x.items()} if isinstance(x, dict) else x

    return Batch(*map(tensor, fields))


class TrainingClips(ClipDataset):
    """Clips of a release for the trainer: dicts of one clip's part of :class:`Batch`.

    Prompt variant and reference take are drawn by hash of (key, epoch, seed). A clip without a reference, or without a
    prompt that the recipe gives a share, is trained on with the empty one.

    Args:
        columns: of ``meta/`` that :meth:`tensors` needs.
        members: that it needs, all if None.

    Raises:
        ValueError: as :class:`~corpus.loader.ClipDataset`; latents that are not of the model's channels.
    """

    def __init__(
        self,
        config: DataConfig,
        model: ModelConfig,
        *,
        split: str,
        streams: Sequence[Stream],
        seed: int,
        members: Sequence[str] | None,
        columns: Sequence[str] = (),
    ) -> None:
        super().__init__(
            config.release,
            split,
            latents=config.latents,
            members=members,
            prompts=None,
            columns=columns,
            seed=seed,
            cache=config.cache,
            cache_bytes=int(config.cache_gb * 1e9),
        )
        self._config, self._model, self._with_video = config, model, "video" in streams
        self._texts = {"default": {}, **config.texts}
        if not self._texts["default"]:
            raise ValueError("data.texts: there is no `default`")

    def tensors(self, number: int, epoch: int) -> Mapping[str, Tensor]:
        """A clip's latents and embeddings by name, see the top of this module."""
        raise NotImplementedError

    def clip(self, number: int, epoch: int) -> dict[str, Any]:
        tensors = self.tensors(number, epoch)
        key = self.index.keys[number].as_py()
        self._check(key, tensors)
        draw = {"key": key, "epoch": epoch, "seed": self.seed}
        frames, length = bounds(self._config, self._model, float(self.index.duration_s[number]))
        takes = sorted(name for name in tensors if name.startswith("ref"))
        reference = tensors[takes[draw_take(len(takes), **draw)]].T if takes else None
        return {
            "name": f"{key}|{epoch}",
            "video": tensors["video"][:, :frames] if self._with_video else None,
            "audio": tensors["audio"][:, :length],
            "reference": None if reference is None else reference[: self._model.reference_len],
            "texts": {
                table: tensors[f"text.{self._variant(table, shares, tensors, **draw)}"]
                for table, shares in self._texts.items()
            },
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

    def _variant(
        self, table: str, shares: Mapping[str, float], tensors: Mapping[str, Tensor], *, key: str, epoch: int, seed: int
    ) -> str:
        """Drawn by share among the variants that the clip has."""
        shares = {name: share for name, share in shares.items() if share and f"text.{name}" in tensors}
        if not shares:
            named = ", ".join(self._texts[table])
            warnings.warn(f"clips without the prompts of data.texts.{table} ({named}) get the empty one", stacklevel=2)
            return NULL_TEXT
        return by_share(shares, hash64("text", table, key, epoch, seed) / 2**64)


def bounds(data: DataConfig, model: ModelConfig, duration_s: float) -> tuple[int | None, int | None]:
    """Latent frames and audio latents that its bucket leaves of a clip; None for all."""
    fitting = [d for d in data.durations_s if d <= duration_s + 1e-3]
    if not fitting:
        return None, None
    frames = 1 + (int(fitting[-1] * model.fps + 1e-6) - 1) // model.temporal_stride
    seconds = (1 + (frames - 1) * model.temporal_stride) / model.fps
    return frames, math.ceil(seconds * model.audio_latent_rate - 1e-6)


class LatentClips(TrainingClips):
    """Clips whose latents ``train.encode`` wrote.

    Raises:
        ValueError: as :class:`TrainingClips`, and latents that cannot be read.
    """

    def __init__(
        self, config: DataConfig, model: ModelConfig, *, split: str, streams: Sequence[Stream], seed: int
    ) -> None:
        super().__init__(config, model, split=split, streams=streams, seed=seed, members=[MEMBER])
        self._kept: dict[int, dict[str, Tensor]] | None = {} if config.in_memory else None

    def tensors(self, number: int, epoch: int) -> Mapping[str, Tensor]:
        if self._kept is not None and number in self._kept:
            return self._kept[number]
        content = ClipDataset.clip(self, number, epoch)
        try:
            tensors = safetensors.torch.load(content[MEMBER])
        except SafetensorError as error:
            raise ValueError(f"latents of {content['key']} are not readable: {error}") from None
        if self._kept is not None:
            self._kept[number] = tensors
        return tensors


class Stack:
    """Makes a :class:`Batch` of samples; an object, so that reading processes can be handed it."""

    def __init__(self, model: ModelConfig) -> None:
        self._model = model

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> Batch:
        """
        Raises:
            ValueError: videos of different shapes, or lengths past what the model holds.
        """
        model = self._model
        videos, audios = [s["video"] for s in samples], [s["audio"] for s in samples]
        shapes = {tuple(video.shape) for video in videos if video is not None}
        if len(shapes) > 1:
            raise ValueError(f"a batch has videos of {sorted(shapes)}: give data.durations_s and data.aspects")
        longest = max(audio.shape[1] for audio in audios)
        lengths = torch.tensor([audio.shape[1] for audio in audios])
        voices = [s["reference"] for s in samples]
        like = audios[0]
        empty = like.new_zeros(model.reference_len, model.audio_channels)
        return Batch(
            names=[s["name"] for s in samples],
            video=torch.stack(videos) if shapes else None,
            audio=torch.stack([F.pad(audio, (0, longest - audio.shape[1])) for audio in audios]),
            audio_lengths=None if bool((lengths == longest).all()) else lengths,
            reference=torch.stack([empty if v is None else _rows(v, model.reference_len) for v in voices]),
            texts={
                table: torch.stack([_rows(s["texts"][table], model.text_len) for s in samples])
                for table in samples[0]["texts"]
            },
            null_text=torch.stack([_rows(s["null_text"], model.text_len) for s in samples]),
        )


def _rows(x: Tensor, rows: int) -> Tensor:
    return F.pad(x, (0, 0, 0, rows - x.shape[0]))
