"""Attention, in one place: which kernel runs it, keys that are padding, and the joint attention of the two streams.

Tensors are (B, L, heads, head_dim). Padding comes after the valid keys of a sample, so a length a sample says it
all.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import activate_flash_attention_impl, restore_flash_attention_impl
from torch.nn.attention.flex_attention import create_block_mask, flex_attention


class Heads(NamedTuple):
    """Queries, keys and values of one stream, each (B, L, heads, head_dim)."""

    q: Tensor
    k: Tensor
    v: Tensor


def use_kernels(
    *, flash: Literal["default", "FA3", "FA4"] = "default", padded: Literal["sdpa", "flex"] = "sdpa"
) -> None:
    """Choose the kernels of this process; without a call, PyTorch's dispatch of scaled dot-product attention decides.

    Args:
        flash: what runs attention without padding on CUDA in half precision: PyTorch's own flash attention, or
            FlashAttention 3 (Hopper) or 4 from their packages.
        padded: what runs padded batches: SDPA with a mask, or FlexAttention, which skips blocks of padding (CUDA; on
            a CPU it has no backward).

    Raises:
        ValueError: the flash attention package is not installed, or not for this GPU.
    """
    global _padded
    if flash == "default":
        restore_flash_attention_impl()
    else:
        try:
            activate_flash_attention_impl(flash)
        except (ImportError, RuntimeError) as error:
            raise ValueError(f"{flash} is not available here: {error}") from None
    _padded = {"sdpa": _sdpa_padded, "flex": _flex_padded}[padded]


def attention(q: Tensor, k: Tensor, v: Tensor, *, key_lengths: Tensor | None = None) -> Tensor:
    """Softmax attention of ``q`` (B, Lq, N, D) over ``k``, ``v`` (B, Lk, N, D), scaled by 1/sqrt(D).

    Args:
        key_lengths: (B,) integers from 1 to Lk, the valid keys of each sample; None means all.
    """
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if key_lengths is None:
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    return _padded(q, k, v, key_lengths).transpose(1, 2)


def _sdpa_padded(q: Tensor, k: Tensor, v: Tensor, key_lengths: Tensor) -> Tensor:
    valid = torch.arange(k.shape[2], device=k.device) < key_lengths[:, None]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=valid[:, None, None])


def _flex_padded(q: Tensor, k: Tensor, v: Tensor, key_lengths: Tensor) -> Tensor:
    def valid(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return key < key_lengths[batch]

    mask = create_block_mask(valid, q.shape[0], None, q.shape[2], k.shape[2], device=q.device)
    return (_compiled_flex() if q.is_cuda else flex_attention)(q, k, v, block_mask=mask)


@cache
def _compiled_flex() -> Callable[..., Tensor]:
    return torch.compile(flex_attention, dynamic=True)


_padded = _sdpa_padded


class JointAttention(nn.Module):
    """Attention of both streams over the concatenated tokens; no weights.

    A module of its own so that a hook sees every block's queries and keys, and so that a sharded one can take its
    place.
    """

    def forward(
        self, video: Heads, audio: Heads, *, blind_video: bool = False, audio_lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Outputs of both streams, (B, Lv, N, D) and (B, La, N, D).

        Args:
            blind_video: video attends to itself alone, audio still to both. Two dense calls instead of a mask, so
                video does not depend on audio in a single bit.
            audio_lengths: (B,) valid audio tokens of each sample; None means all.
        """
        k, v = torch.cat((video.k, audio.k), 1), torch.cat((video.v, audio.v), 1)
        key_lengths = None if audio_lengths is None else video.k.shape[1] + audio_lengths
        if blind_video:
            return attention(*video), attention(audio.q, k, v, key_lengths=key_lengths)
        joint = attention(torch.cat((video.q, audio.q), 1), k, v, key_lengths=key_lengths)
        return joint.split((video.q.shape[1], audio.q.shape[1]), 1)
