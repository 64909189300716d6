"""The joint block: both streams' halves and the attention between them, in one module with its own forward.

Sharding, activation checkpointing and compilation all act on a module's forward, so a block must not be driven from
outside by its parts; everything that crosses its border is a tensor, a named tuple of tensors, or a flag.
"""

from __future__ import annotations

from torch import Tensor, nn

from model.attention import JointAttention, attention
from model.config import ModelConfig, Stream
from model.stream import Context, HalfBlock
from model.video_cache import LayerCache


class JointBlock(nn.Module):
    """One layer of both streams, or of the one that the model was built with."""

    def __init__(self, config: ModelConfig, streams: tuple[Stream, ...]) -> None:
        super().__init__()
        self.video, self.audio = (
            HalfBlock(config, reference=config.has_reference(stream)) if stream in streams else None
            for stream in ("video", "audio")
        )
        self.attention = JointAttention()

    def forward(
        self,
        video: Tensor | None,
        audio: Tensor | None,
        video_context: Context | None,
        audio_context: Context | None,
        *,
        blind_video: bool = False,
        audio_lengths: Tensor | None = None,
        cache: LayerCache | None = None,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Tokens of both streams, (B, Lv, D) and (B, La, D), to theirs after this layer; None for a stream that is
        absent.

        Args:
            blind_video, audio_lengths: see :class:`~model.attention.JointAttention`.
            cache: takes the video's keys and values while it is empty, stands for the absent video once it is filled.
        """
        if video is not None:
            video_times = self.video.times(video_context)
            video_heads = self.video.project(video, *video_times[:2], video_context.rotation)
        if audio is not None:
            audio_times = self.audio.times(audio_context)
            audio_heads = self.audio.project(audio, *audio_times[:2], audio_context.rotation)
        if cache is not None and video is not None:
            cache.keep(video_heads.k, video_heads.v, audio.shape[1])

        if video is not None and audio is not None:
            video_attended, audio_attended = self.attention(
                video_heads, audio_heads, blind_video=blind_video, audio_lengths=audio_lengths
            )
        elif video is not None:
            video_attended = attention(*video_heads)
        elif cache is not None:
            k, v = cache.joined(audio_heads.k, audio_heads.v)
            lengths = None if audio_lengths is None else cache.video_tokens + audio_lengths
            audio_attended = attention(audio_heads.q, k, v, key_lengths=lengths)
        else:
            audio_attended = attention(*audio_heads, key_lengths=audio_lengths)

        if video is not None:
            video = self.video.finish(video, video_attended, video_times, video_context)
        if audio is not None:
            audio = self.audio.finish(audio, audio_attended, audio_times, audio_context)
        return video, audio
