"""The keys and values of a given video, kept over the steps of sampling its audio.

In TV2A video does not see audio and has no noise, so all that audio needs of it, its keys and values in every block,
is the same at every step. After the first pass, only audio tokens run.
"""

from __future__ import annotations

import torch
from torch import Tensor


class LayerCache:
    """One block's joint keys and values (B, Lv + La, heads, head_dim): video's stay, audio's are written anew."""

    def __init__(self) -> None:
        self._k: Tensor | None = None
        self._v: Tensor | None = None
        self._video_tokens = 0

    @property
    def filled(self) -> bool:
        return self._k is not None

    @property
    def bytes(self) -> int:
        return 0 if self._k is None else self._k.nbytes + self._v.nbytes

    @property
    def video_tokens(self) -> int:
        return self._video_tokens

    def keep(self, k: Tensor, v: Tensor, audio_tokens: int) -> None:
        """Store the video's keys and values, with room for the audio's after them."""
        self._video_tokens = k.shape[1]
        room = (k.shape[0], audio_tokens, *k.shape[2:])
        self._k, self._v = torch.cat((k, k.new_zeros(room)), 1), torch.cat((v, v.new_zeros(room)), 1)

    def joined(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Joint keys and values with the audio's put in their place; valid until the next call."""
        if (room := self._k.shape[1] - self._video_tokens) != k.shape[1] or len(k) != len(self._k):
            raise ValueError(
                f"the cache holds {len(self._k)} videos with {room} audio tokens, not {len(k)} with {k.shape[1]}: "
                "make a new VideoCache for another batch"
            )
        self._k[:, self._video_tokens :] = k
        self._v[:, self._video_tokens :] = v
        return self._k, self._v


class VideoCache:
    """Give the same one to every call of :class:`~model.transformer.UniTalking` for one batch of videos and prompts.

    The prompts matter, since video attends to text: a guidance branch with another text needs its own cache.
    """

    def __init__(self, layers: int) -> None:
        self.layers = [LayerCache() for _ in range(layers)]

    @property
    def filled(self) -> bool:
        return any(layer.filled for layer in self.layers)

    @property
    def bytes(self) -> int:
        """Memory of the kept tensors: 2 · layers · tokens · dim · element size a sample."""
        return sum(layer.bytes for layer in self.layers)
