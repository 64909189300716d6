"""What audio attends to in video and video in audio: the joint attention of one pass, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from model.attention import Heads, JointAttention
from model.sampler import Conditions, Latents
from model.tasks import Task
from model.transformer import UniTalking

# Rows of the attention matrix that exist at a time: 27,000 keys of the largest clip make 110 MiB of them.
QUERIES_AT_ONCE = 1024


@dataclass(frozen=True)
class BlockMaps:
    """Attention of one block, averaged over heads; float32 on the CPU.

    Attributes:
        audio_to_video: ``(La, F, h, w)`` weight that each audio token gives each video token.
        video_to_audio: ``(F, h, w, La)`` weight that each video token gives each audio token; zeros where video is
            blind to audio.
    """

    audio_to_video: Tensor
    video_to_audio: Tensor


@torch.no_grad()
def attention_maps(
    model: UniTalking, task: Task, latents: Latents, noise: Latents, conditions: Conditions, sigma: float
) -> list[BlockMaps]:
    """The maps of every block in one pass over a finished sample, noised to a level.

    Args:
        latents: one sample, batch of 1, both streams.
        noise: of the same shapes.
        sigma: noise level in 0…1 of the streams that the task generates.
    """
    video = latents.video
    clean = task.clean_frames(video.shape[2], video.device)
    noisy = torch.where(clean[:, None, None], video, (1 - sigma) * video + sigma * noise.video)
    level = torch.full((1,), sigma, dtype=torch.float64, device=video.device)
    rows, columns = (size // patch for size, patch in zip(video.shape[3:], model.config.patch[1:], strict=True))
    with _captured(model) as captured:
        model(
            video=noisy,
            audio=(1 - sigma) * latents.audio + sigma * noise.audio,
            text=conditions.text,
            video_sigma=level,
            audio_sigma=level,
            clean_frames=clean[None],
            reference=conditions.reference,
            blind_video=task.blind_video,
        )
    return [BlockMaps(a.unflatten(1, (-1, rows, columns)), v.unflatten(0, (-1, rows, columns))) for a, v in captured]


@contextmanager
def _captured(model: UniTalking) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Audio-to-video ``(La, Lv)`` and video-to-audio ``(Lv, La)`` weights of every joint attention that runs."""
    found: list[tuple[Tensor, Tensor]] = []

    def look(_: JointAttention, streams: tuple[Heads, Heads], options: dict[str, object]) -> None:
        video, audio = streams
        keys, length = torch.cat((video.k, audio.k), 1), video.k.shape[1]
        to_video = _weights(audio.q, keys, slice(0, length))
        blind = options.get("blind_video", False)
        to_audio = torch.zeros(length, audio.k.shape[1]) if blind else _weights(video.q, keys, slice(length, None))
        found.append((to_video, to_audio))

    hooks = [block.attention.register_forward_pre_hook(look, with_kwargs=True) for block in model.blocks]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _weights(q: Tensor, k: Tensor, wanted: slice) -> Tensor:
    """Softmax over all keys, mean over heads: ``(Lq, wanted keys)`` of the first sample."""
    q, k = q[0].transpose(0, 1).float(), k[0].transpose(0, 1).float()  # (N, L, D)
    mean = torch.zeros(q.shape[1], len(range(*wanted.indices(k.shape[1]))))
    for head_q, head_k in zip(q * q.shape[-1] ** -0.5, k, strict=True):
        parts = [(part @ head_k.T).softmax(-1)[:, wanted].cpu() for part in head_q.split(QUERIES_AT_ONCE)]
        mean += torch.cat(parts) / len(q)
    return mean
