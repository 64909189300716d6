"""Batches of latents: samples of :class:`train.data.TrainingClips`, padded and stacked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.config import ModelConfig

INLINE_BYTES = 4 << 20


class Batch(NamedTuple):
    """Samples of one rank, of one shape.

    Attributes:
        names: key and epoch of each sample, which is what its noise is keyed by.
        video: (B, Cv, F, h, w), None where only audio is trained.
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
        """Pickle a small batch as bytes: from a worker, every tensor in shared memory costs two milliseconds."""
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


class Collate:
    """Makes a :class:`Batch` of samples; an object, so that it can be pickled to workers."""

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
