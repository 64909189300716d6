"""One stream of the twin: what turns latents into tokens and back, and its half of every joint block.

The names of parameters are those of Wan (``wan/modules/model.py``), so that its checkpoints map onto a stream by
prefix.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.attention import Heads, attention
from model.config import ModelConfig, Stream
from model.modulation import gated_sum, linear_float32, modulated, normalised, pick, timestep_embedding
from model.rope import Rotation, rotate


class Context(NamedTuple):
    """What all blocks of a stream share in one forward pass.

    Attributes:
        time: (B, K, 6, D) float32, shifts, scales and gates of the K noise levels of each sample, before a block
            adds its own.
        groups: (B, G) which level each of G equal groups of neighbouring tokens has; None where K = G = 1.
        rotation: the tokens' rotary positions.
        text: (B, text_len, D).
        reference: (B, R, D), or None where the stream has no reference keys.
    """

    time: Tensor
    groups: Tensor | None
    rotation: Rotation
    text: Tensor
    reference: Tensor | None


class SelfAttention(nn.Module):
    """Projections around the joint attention: queries and keys normalised over the full width, then rotated."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.q, self.k, self.v, self.o = (nn.Linear(config.dim, config.dim) for _ in range(4))
        self.norm_q, self.norm_k = (nn.RMSNorm(config.dim, config.eps) for _ in range(2))

    def project(self, x: Tensor, rotation: Rotation) -> Heads:
        split = (self.heads, -1)
        q, k = self.norm_q(self.q(x)).unflatten(-1, split), self.norm_k(self.k(x)).unflatten(-1, split)
        v = self.v(x).unflatten(-1, split)
        return Heads(rotate(q, rotation).type_as(v), rotate(k, rotation).type_as(v), v)


class CrossAttention(nn.Module):
    """Attention to the text plus, before the output projection, attention to the reference voice (Wan's image slot).

    ``v_ref`` starts at zero: a reference changes nothing until it is trained.
    """

    def __init__(self, config: ModelConfig, *, reference: bool) -> None:
        super().__init__()
        self.heads = config.heads
        self.q, self.k, self.v, self.o = (nn.Linear(config.dim, config.dim) for _ in range(4))
        self.norm_q, self.norm_k = (nn.RMSNorm(config.dim, config.eps) for _ in range(2))
        if reference:
            self.k_ref, self.v_ref = (nn.Linear(config.dim, config.dim) for _ in range(2))
            self.norm_k_ref = nn.RMSNorm(config.dim, config.eps)

    def forward(self, x: Tensor, text: Tensor, reference: Tensor | None) -> Tensor:
        split = (self.heads, -1)
        q = self.norm_q(self.q(x)).unflatten(-1, split)
        k, v = self.norm_k(self.k(text)).unflatten(-1, split), self.v(text).unflatten(-1, split)
        y = attention(q.type_as(v), k.type_as(v), v)
        if reference is not None:
            k, v = (
                self.norm_k_ref(self.k_ref(reference)).unflatten(-1, split),
                self.v_ref(reference).unflatten(-1, split),
            )
            y = y + attention(q.type_as(v), k.type_as(v), v)
        return self.o(y.flatten(2))


class HalfBlock(nn.Module):
    """One stream's half of a joint block: everything but the attention that joins them."""

    def __init__(self, config: ModelConfig, *, reference: bool) -> None:
        super().__init__()
        self.eps = config.eps
        self.self_attn = SelfAttention(config)
        self.cross_attn = CrossAttention(config, reference=reference)
        self.norm3 = nn.LayerNorm(config.dim, config.eps)
        self.ffn = nn.Sequential(
            nn.Linear(config.dim, config.ffn_dim), nn.GELU("tanh"), nn.Linear(config.ffn_dim, config.dim)
        )
        self.modulation = nn.Parameter(torch.empty(1, 6, config.dim))

    def times(self, context: Context) -> tuple[Tensor, ...]:
        """Shift, scale, gate of attention, then of the FFN; each (B, G, D) float32."""
        return pick(self.modulation.float().unsqueeze(1) + context.time, context.groups).unbind(2)

    def project(self, x: Tensor, shift: Tensor, scale: Tensor, rotation: Rotation) -> Heads:
        return self.self_attn.project(modulated(normalised(x, self.eps), shift, scale).type_as(x), rotation)

    def finish(self, x: Tensor, attended: Tensor, times: tuple[Tensor, ...], context: Context) -> Tensor:
        """The block's output (B, L, D) from its input ``x`` and what it ``attended`` to (B, L, N, head_dim)."""
        _, _, gate, ffn_shift, ffn_scale, ffn_gate = times
        x = gated_sum(x, self.self_attn.o(attended.flatten(2)), gate)
        norm = F.layer_norm(x.float(), x.shape[-1:], self.norm3.weight.float(), self.norm3.bias.float(), self.eps)
        x = x + self.cross_attn(norm.type_as(x), context.text, context.reference)
        update = self.ffn(modulated(normalised(x, self.eps), ffn_shift, ffn_scale).type_as(x))
        return gated_sum(x, update, ffn_gate)


class Head(nn.Module):
    """Tokens to velocities of a token's latents (B, L, out)."""

    def __init__(self, config: ModelConfig, out: int) -> None:
        super().__init__()
        self.eps = config.eps
        self.head = nn.Linear(config.dim, out)
        self.modulation = nn.Parameter(torch.empty(1, 2, config.dim))

    def forward(self, x: Tensor, embedded_time: Tensor, groups: Tensor | None) -> Tensor:
        """``embedded_time`` (B, K, D) float32 of the noise levels, ``groups`` as in :class:`Context`."""
        shift, scale = pick(self.modulation.float().unsqueeze(1) + embedded_time.unsqueeze(2), groups).unbind(2)
        return self.head(modulated(normalised(x, self.eps), shift, scale).to(self.head.weight.dtype)).float()


class PatchEmbedding(nn.Module):
    """Latents of a patch to a token; the weight has the shape of Wan's convolution (D, C, 1, rows, columns)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.patch = config.patch
        self.weight = nn.Parameter(torch.empty(config.dim, config.video_channels, *config.patch))
        self.bias = nn.Parameter(torch.empty(config.dim))

    def forward(self, latent: Tensor) -> Tensor:
        """(B, C, F, H, W) → (B, tokens, D) in (frame, row, column) order."""
        _, rows, columns = self.patch
        patches = latent.unflatten(4, (-1, columns)).unflatten(3, (-1, rows))  # (B, C, F, h, p, w, q)
        patches = patches.permute(0, 2, 3, 5, 1, 4, 6).flatten(4).flatten(1, 3)
        return F.linear(patches.to(self.weight.dtype), self.weight.flatten(1), self.bias)


def conv_hidden(dim: int) -> int:
    """Hidden channels of Ovi's audio input: two thirds of four times ``dim``, rounded up to a multiple of 256."""
    return 256 * -(-8 * dim // (3 * 256))


class GatedConv(nn.Module):
    """Gated convolutional MLP of MMAudio and Ovi: ``w2(silu(w1 x) · w3 x)``, seven taps wide, without biases."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = conv_hidden(dim)
        self.w1, self.w3 = (nn.Conv1d(dim, hidden, 7, padding=3, bias=False) for _ in range(2))
        self.w2 = nn.Conv1d(hidden, dim, 7, padding=3, bias=False)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x) * valid)


class ConvEmbedding(nn.Sequential):
    """Ovi's audio input: a convolution, SiLU and a gated convolutional MLP."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__(nn.Conv1d(channels, dim, 7, padding=3), nn.SiLU(), GatedConv(dim))

    def forward(self, latent: Tensor, lengths: Tensor | None) -> Tensor:
        """(B, C, L) → (B, L, D); to the convolutions, what lies past a sample's length is zero."""
        valid = latent.new_ones(1, 1, latent.shape[2])
        if lengths is not None:
            valid = (torch.arange(latent.shape[2], device=latent.device) < lengths[:, None])[:, None].type_as(latent)
        x = F.silu(self[0](latent * valid)) * valid
        return (self[2](x, valid) * valid).transpose(1, 2)


class StreamEnds(nn.Module):
    """What a stream has outside its blocks: latents in, text and time in, velocities out."""

    def __init__(self, config: ModelConfig, stream: Stream) -> None:
        super().__init__()
        dim = config.dim
        self.freq_dim = config.freq_dim
        self.patch = config.patch
        if stream == "video":
            self.patch_embedding = PatchEmbedding(config)
        elif config.audio_input == "conv_mlp":
            self.patch_embedding = ConvEmbedding(config.audio_channels, dim)
        else:
            self.patch_embedding = nn.Linear(config.audio_channels, dim)
        self.text_embedding = nn.Sequential(nn.Linear(config.text_dim, dim), nn.GELU("tanh"), nn.Linear(dim, dim))
        self.time_embedding = nn.Sequential(nn.Linear(config.freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        patch_rows, patch_columns = config.patch[1:]
        out = config.video_channels * patch_rows * patch_columns if stream == "video" else config.audio_channels
        self.head = Head(config, out)

    def embed_video(self, latent: Tensor) -> Tensor:
        return self.patch_embedding(latent)

    def embed_audio(self, latent: Tensor, lengths: Tensor | None) -> Tensor:
        """(B, C, L) → (B, L, D)."""
        if isinstance(self.patch_embedding, ConvEmbedding):
            return self.patch_embedding(latent.to(self.patch_embedding[0].weight.dtype), lengths)
        return self.patch_embedding(latent.transpose(1, 2).to(self.patch_embedding.weight.dtype))

    def embed_time(self, sigmas: Tensor) -> tuple[Tensor, Tensor]:
        """Noise levels (B, K) → their embedding (B, K, D) and its projection for the blocks (B, K, 6, D), float32."""
        first, _, second = self.time_embedding
        embedded = linear_float32(second, F.silu(linear_float32(first, timestep_embedding(sigmas, self.freq_dim))))
        return embedded, linear_float32(self.time_projection[1], F.silu(embedded)).unflatten(-1, (6, -1))

    def embed_text(self, text: Tensor) -> Tensor:
        return self.text_embedding(text.to(self.text_embedding[0].weight.dtype))

    def velocity_video(self, tokens: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """(B, F·h·w, C·p·q) → (B, C, F, H, W); channels vary fastest within a token, as in Wan."""
        _, rows, columns = self.patch
        patches = tokens.unflatten(2, (rows, columns, -1)).unflatten(1, grid)  # (B, F, h, w, p, q, C)
        return patches.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)
