"""Floating-point operations of a forward pass, counted from shapes; two for every multiply-add.

Counts are those of the matrix products: projections, convolutions and attention, as ``torch.utils.flop_counter`` counts
them. At 704p half of them are the joint attention, so a utilisation from parameters alone would be half the truth. A
backward pass costs twice the forward, recomputation once more.
"""

from __future__ import annotations

from typing import NamedTuple

from model.config import ModelConfig, Stream
from model.stream import conv_hidden


class Flops(NamedTuple):
    """Operations of one sample's forward pass.

    Attributes:
        linear: projections and convolutions.
        joint: attention within and between the streams.
        cross: attention to text and reference.
    """

    linear: int
    joint: int
    cross: int

    @property
    def total(self) -> int:
        return self.linear + self.joint + self.cross


def forward_flops(
    config: ModelConfig,
    *,
    video: tuple[int, int, int] | None = None,
    audio: int | None = None,
    reference: bool = True,
    blind_video: bool = False,
    clean_frames: bool = False,
    cached: bool = False,
) -> Flops:
    """Operations of one sample through :class:`~model.transformer.UniTalking`.

    Args:
        video: latent frames, rows and columns; None where the stream does not run.
        audio: latents, likewise.
        reference: whether a voice is given (the null reference is a single token).
        blind_video: TV2A, in which video does not attend to audio.
        clean_frames: whether the video has two noise levels.
        cached: TV2A with a filled cache: video is only attended to.
    """
    video_tokens = 0 if video is None else video[0] * (video[1] // config.patch[1]) * (video[2] // config.patch[2])
    audio_tokens = audio or 0
    keys = video_tokens + audio_tokens
    voice = config.reference_len if reference else 1
    linear = cross = 0
    if any(tokens and config.has_reference(stream) for stream, tokens in (("video", video), ("audio", audio))):
        linear += voice * (config.audio_channels + config.dim) * config.dim
    for stream, tokens in (("video", 0 if cached else video_tokens), ("audio", audio_tokens)):
        if tokens:
            heard = voice if config.has_reference(stream) else 0
            linear += _stream_products(config, stream, tokens, heard, levels=1 + (clean_frames and stream == "video"))
            cross += 2 * config.layers * tokens * (config.text_len + heard) * config.dim
    pairs = audio_tokens * keys
    if not cached:
        pairs += video_tokens * (video_tokens if blind_video else keys)
    return Flops(2 * linear, 2 * 2 * config.layers * pairs * config.dim, 2 * cross)


def _stream_products(config: ModelConfig, stream: Stream, tokens: int, heard: int, *, levels: int) -> int:
    """Multiply-adds of all linear layers of a stream."""
    dim = config.dim
    square = dim * dim
    block = tokens * (6 * square + 2 * dim * config.ffn_dim)  # q, k, v, o; cross q, o; the FFN
    block += 2 * (config.text_len + heard) * square  # cross k, v
    text = config.text_len * (config.text_dim * dim + square)
    time = levels * (config.freq_dim * dim + square + 6 * square)
    channels = config.audio_channels
    if stream == "video":
        channels = config.video_channels * config.patch[1] * config.patch[2]
    inputs = channels * dim
    if stream == "audio" and config.audio_input == "conv_mlp":
        inputs = 7 * (channels * dim + 3 * dim * conv_hidden(dim))
    return config.layers * block + text + time + tokens * (inputs + channels * dim)
