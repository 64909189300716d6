"""Sequence parallelism over heads (DeepSpeed-Ulysses, https://arxiv.org/abs/2309.14509), around the blocks.

Ranks of a group share their samples. Before the first block each keeps a part of the tokens: of the video a part of
every latent frame, so that what depends on a frame's noise level applies as it is, and of the audio a stretch. In the
joint attention tokens are exchanged for heads, and after the last block all tokens come together again. What stands
before and after the blocks is computed by all ranks of the group alike; gradients of the gathered tokens are scaled by
the size of the group, so that the mean over all ranks, which FSDP takes, is right for both.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function

from model.attention import Heads, JointAttention
from model.rope import Rotation
from model.stream import Context
from model.transformer import UniTalking


def use_sequence_parallel(model: UniTalking, group: dist.ProcessGroup) -> None:
    """Split the tokens of steps with both streams over ``group``; audio alone is too short to be worth it.

    Only training is split: without gradients, in validation and in samples, every rank of the group computes the whole.

    Raises:
        ValueError: the group's size does not divide the heads.
    """
    if model.config.heads % group.size():
        raise ValueError(f"parallel.sequence={group.size()} must divide the {model.config.heads} heads")
    split = TokenSplit(group)
    model.register_forward_pre_hook(split.before_pass)
    for block in model.blocks:
        block.attention = UlyssesAttention(split)
        block.register_forward_pre_hook(split.before_block)
    model.blocks[0].register_forward_pre_hook(split.before_first, prepend=True)
    model.blocks[-1].register_forward_hook(split.after_last)


class TokenSplit:
    """How the tokens of the pass under way are split: each stream is ``rows`` equal runs, cut alike.

    Attributes:
        rows: runs of (video, audio); 0 while the streams are not split.
        sizes: tokens of a run on each rank, of (video, audio).
    """

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group, self._rank = group, group.rank()
        self.rows: tuple[int, int] = (0, 0)
        self.sizes: tuple[list[int], list[int]] = ([], [])

    def before_pass(self, model: Any, inputs: tuple) -> None:
        """Hook: nothing is split yet."""
        self.rows = (0, 0)

    def before_first(self, block: Any, inputs: tuple) -> tuple:
        """Hook: keep this rank's tokens."""
        video, audio, video_context, audio_context = inputs
        if video is None or audio is None or not torch.is_grad_enabled():
            return inputs
        groups = video_context.groups
        frames = 1 if groups is None else groups.shape[1]
        self.rows = (frames, 1)
        self.sizes = (self._cut(video.shape[1] // frames), self._cut(audio.shape[1]))
        return self._part(video, 0), self._part(audio, 1), video_context, audio_context

    def before_block(self, block: Any, inputs: tuple) -> tuple:
        """Hook: the rotations of this rank's tokens."""
        if not self.rows[0]:
            return inputs
        video, audio, *contexts = inputs
        return video, audio, *(self._context(context, stream) for stream, context in enumerate(contexts))

    def after_last(self, block: Any, inputs: tuple, outputs: tuple) -> tuple:
        """Hook: all tokens."""
        if not self.rows[0]:
            return outputs
        return tuple(_Gather.apply(x, self, stream) for stream, x in enumerate(outputs))

    def lengths(self, stream: int) -> list[int]:
        """Tokens of the stream on each rank."""
        return [self.rows[stream] * size for size in self.sizes[stream]]

    def bounds(self, stream: int) -> tuple[int, int]:
        """Begin and end of this rank's part of a run."""
        begin = sum(self.sizes[stream][: self._rank])
        return begin, begin + self.sizes[stream][self._rank]

    def _cut(self, tokens: int) -> list[int]:
        each, more = divmod(tokens, self.group.size())
        return [each + (rank < more) for rank in range(self.group.size())]

    def _part(self, x: Tensor, stream: int, axis: int = 1) -> Tensor:
        begin, end = self.bounds(stream)
        runs = x.unflatten(axis, (self.rows[stream], -1))
        return runs.narrow(axis + 1, begin, end - begin).flatten(axis, axis + 1)

    def _context(self, context: Context, stream: int) -> Context:
        return context._replace(rotation=Rotation(*(self._part(x, stream, axis=0) for x in context.rotation)))


class UlyssesAttention(JointAttention):
    """Joint attention of all tokens with this rank's share of the heads."""

    def __init__(self, split: TokenSplit) -> None:
        super().__init__()
        self._split = split

    def forward(
        self, video: Heads, audio: Heads, *, blind_video: bool = False, audio_lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        if not self._split.rows[0]:
            return super().forward(video, audio, blind_video=blind_video, audio_lengths=audio_lengths)
        group, lengths = self._split.group, [self._split.lengths(stream) for stream in (0, 1)]
        whole = [self._whole(heads, size) for heads, size in zip((video, audio), lengths, strict=True)]
        attended = super().forward(*whole, blind_video=blind_video, audio_lengths=audio_lengths)
        video_out, audio_out = (
            _ToTokens.apply(x[None].contiguous(), size, group)[0] for x, size in zip(attended, lengths, strict=True)
        )
        return video_out, audio_out

    def _whole(self, heads: Heads, lengths: list[int]) -> Heads:
        """All tokens of this rank's heads. Queries go by themselves: where nobody uses what they attend to (the last
        block's video in TV2A), they have no gradient, rather than one of zeros that Adam would act on."""
        group = self._split.group
        (q,) = _ToHeads.apply(heads.q[None], lengths, group)
        return Heads(q, *_ToHeads.apply(torch.stack((heads.k, heads.v)), lengths, group).unbind())


def _to_heads(x: Tensor, lengths: list[int], group: dist.ProcessGroup) -> Tensor:
    """(n, B, own tokens, N, d) of every rank → (n, B, all tokens, N / ranks, d), ranks' tokens one after another."""
    ranks = group.size()
    n, batch, _, heads, width = x.shape
    sent = torch.stack(x.chunk(ranks, 3)).flatten()
    shapes = [(n, batch, length, heads // ranks, width) for length in lengths]
    received = _exchange(sent, [sent.numel() // ranks] * ranks, [torch.Size(shape).numel() for shape in shapes], group)
    return torch.cat([part.view(shape) for part, shape in zip(received, shapes, strict=True)], 2)


def _to_tokens(x: Tensor, lengths: list[int], group: dist.ProcessGroup) -> Tensor:
    """The way back from :func:`_to_heads`."""
    n, batch, _, heads, width = x.shape
    parts = [part.flatten() for part in x.split(lengths, 2)]
    own = lengths[group.rank()]
    size = n * batch * own * heads * width
    received = _exchange(torch.cat(parts), [part.numel() for part in parts], [size] * group.size(), group)
    return torch.cat([part.view(n, batch, own, heads, width) for part in received], 3)


def _exchange(sent: Tensor, out: list[int], into: list[int], group: dist.ProcessGroup) -> list[Tensor]:
    received = sent.new_empty(sum(into))
    dist.all_to_all_single(received, sent, into, out, group=group)
    return list(received.split(into))


class _ToHeads(Function):
    @staticmethod
    def forward(ctx, x: Tensor, lengths: list[int], group: dist.ProcessGroup) -> Tensor:
        ctx.lengths, ctx.group = lengths, group
        return _to_heads(x, lengths, group)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _to_tokens(gradient, ctx.lengths, ctx.group), None, None


class _ToTokens(Function):
    @staticmethod
    def forward(ctx, x: Tensor, lengths: list[int], group: dist.ProcessGroup) -> Tensor:
        ctx.lengths, ctx.group = lengths, group
        return _to_tokens(x, lengths, group)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _to_heads(gradient, ctx.lengths, ctx.group), None, None


class _Gather(Function):
    """Tokens of all ranks in their order; see the module's docstring for the gradient."""

    @staticmethod
    def forward(ctx, x: Tensor, split: TokenSplit, stream: int) -> Tensor:
        ranks = split.group.size()
        ctx.rows, ctx.bounds, ctx.ranks = split.rows[stream], split.bounds(stream), ranks
        sizes = [x.numel() // x.shape[1] * length for length in split.lengths(stream)]
        received = _exchange(x.flatten().repeat(ranks), [x.numel()] * ranks, sizes, split.group)
        runs = [
            part.view(x.shape[0], ctx.rows, size, x.shape[2])
            for part, size in zip(received, split.sizes[stream], strict=True)
        ]
        return torch.cat(runs, 2).flatten(1, 2)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        begin, end = ctx.bounds
        runs = gradient.unflatten(1, (ctx.rows, -1))[:, :, begin:end]
        return runs.flatten(1, 2) * ctx.ranks, None, None
