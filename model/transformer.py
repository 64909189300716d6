"""UniTalking: two Wan-sized streams, video and audio, that attend to each other in every block (arXiv 2603.01418).

Signs and times are Wan's: ``x_sigma = (1 - sigma) data + sigma noise``, the network predicts ``noise - data``, and
its timestep is ``1000 sigma``.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.block import JointBlock
from model.config import ModelConfig, Stream
from model.init import initialise
from model.rope import Rotation, audio_rotation, video_rotation
from model.stream import Context, StreamEnds
from model.video_cache import VideoCache


class Velocity(NamedTuple):
    """Predicted ``noise - data`` of each stream, float32, shaped as its latents; None for a stream that did not run."""

    video: Tensor | None
    audio: Tensor | None


class UniTalking(nn.Module):
    """The transformer; parameters are ``blocks.{i}.{video,audio}.*``, ``{video,audio}.*``, ``reference_embedding.*``.

    Under ``torch.device("meta")`` nothing is allocated or initialised. Inputs may have any floating dtype; tokens take
    the dtype of the parameters, while noise levels, modulation and rotations stay in float32 or better (under FSDP2
    mixed precision, set ``cast_forward_inputs=False``, or the blocks would get these in bfloat16).

    Args:
        config: shapes.
        streams: what to build: stage 1 trains the audio half alone, and the video half alone is Wan.
    """

    def __init__(self, config: ModelConfig, *, streams: tuple[Stream, ...] = ("video", "audio")) -> None:
        super().__init__()
        if not streams or not {*streams} <= {"video", "audio"}:
            raise ValueError(f"streams={streams!r}: name video, audio or both")
        self.config = config
        self.streams = tuple(stream for stream in ("video", "audio") if stream in streams)
        with torch.device("meta"):
            for stream in self.streams:
                self.add_module(stream, StreamEnds(config, stream))
            if any(config.has_reference(stream) for stream in self.streams):
                self.reference_embedding = nn.Sequential(
                    nn.Linear(config.audio_channels, config.dim), nn.GELU("tanh"), nn.Linear(config.dim, config.dim)
                )
            self.blocks = nn.ModuleList(JointBlock(config, self.streams) for _ in range(config.layers))
        if (device := torch.get_default_device()).type != "meta":
            initialise(self, device)

    def parameter_counts(self) -> dict[str, int]:
        """Parameters of each stream, its half blocks included, of the shared reference embedding, and of all."""
        counts = dict.fromkeys((*self.streams, "reference"), 0)
        for name, parameter in self.named_parameters():
            part = name.split(".")[2] if name.startswith("blocks.") else name.split(".")[0]
            counts[part if part in self.streams else "reference"] += parameter.numel()
        return counts | {"all": sum(counts.values())}

    def forward(
        self,
        *,
        video: Tensor | None = None,
        audio: Tensor | None = None,
        text: Tensor,
        video_sigma: Tensor | None = None,
        audio_sigma: Tensor | None = None,
        clean_frames: Tensor | None = None,
        reference: Tensor | None = None,
        blind_video: bool = False,
        audio_lengths: Tensor | None = None,
        cache: VideoCache | None = None,
        skip_blocks: Collection[int] = (),
    ) -> Velocity:
        """Velocities of the streams that are given.

        Args:
            video: (B, video_channels, F, H, W) latents, H and W multiples of the patch.
            audio: (B, audio_channels, L) latents.
            text: (B, up to text_len, text_dim) embeddings; missing rows are zeros, and padding is attended to, as in
                Wan.
            video_sigma, audio_sigma: (B,) noise levels in [0, 1].
            clean_frames: bool (B, F) or (F,), latent frames that are given clean, at level 0; None means none.
            reference: (B, up to reference_len, audio_channels) latents of the reference voice; missing rows are
                zeros. None or all zeros is the null reference.
            blind_video: video attends to video alone (TV2A); audio attends to both.
            audio_lengths: (B,) valid latents of each sample of a padded batch; what is predicted past them means
                nothing.
            cache: TV2A under ``no_grad``: filled by the first call, after which video does not run and its velocity
                is None.
            skip_blocks: blocks to leave out, for skip-layer guidance.

        Raises:
            ValueError: a stream without its noise level, shapes that do not fit the configuration, flags that need
                what is not there.
        """
        self._check(video, audio, text, video_sigma, audio_sigma, clean_frames, reference, blind_video, cache)
        if cache is not None and cache.filled:
            video = None
        config = self.config
        text = F.pad(text, (0, 0, 0, config.text_len - text.shape[1]))
        reference = self._embed_reference(reference, text)
        video_tokens = audio_tokens = video_context = audio_context = None
        if video is not None:
            grid = (video.shape[2], video.shape[3] // config.patch[1], video.shape[4] // config.patch[2])
            video_tokens = self.video.embed_video(video)
            sigmas, groups = video_sigma[:, None], None
            if clean_frames is not None:
                sigmas = torch.cat((sigmas, torch.zeros_like(sigmas)), 1)
                groups = clean_frames.long().expand(len(video), -1)
            rotation = video_rotation(grid, config.frame_step, config.head_dim, config.rope_theta, video.device)
            video_time, video_context = self._context("video", sigmas, groups, rotation, text, reference)
        if audio is not None:
            audio_tokens = self.audio.embed_audio(audio, audio_lengths)
            rotation = audio_rotation(
                audio.shape[2], config.audio_step, config.head_dim, config.rope_theta, audio.device
            )
            audio_time, audio_context = self._context("audio", audio_sigma[:, None], None, rotation, text, reference)

        for index, block in enumerate(self.blocks):
            if index in skip_blocks:
                continue
            video_tokens, audio_tokens = block(
                video_tokens,
                audio_tokens,
                video_context,
                audio_context,
                blind_video=blind_video,
                audio_lengths=audio_lengths,
                cache=None if cache is None else cache.layers[index],
            )

        velocity = Velocity(None, None)
        if video is not None:
            tokens = self.video.head(video_tokens, video_time, video_context.groups)
            velocity = velocity._replace(video=self.video.velocity_video(tokens, grid))
        if audio is not None:
            velocity = velocity._replace(audio=self.audio.head(audio_tokens, audio_time, None).transpose(1, 2))
        return velocity

    def _context(
        self,
        stream: Stream,
        sigmas: Tensor,
        groups: Tensor | None,
        rotation: Rotation,
        text: Tensor,
        reference: Tensor | None,
    ) -> tuple[Tensor, Context]:
        """The noise levels' embedding (B, K, D) for the head, and what the blocks get."""
        ends: StreamEnds = self.get_submodule(stream)
        embedded, time = ends.embed_time(sigmas)
        seen = reference if self.config.has_reference(stream) else None
        return embedded, Context(time, groups, rotation, ends.embed_text(text), seen)

    def _embed_reference(self, reference: Tensor | None, like: Tensor) -> Tensor | None:
        if not hasattr(self, "reference_embedding"):
            return None
        if reference is None:  # attention over many equal tokens is attention over one
            reference = like.new_zeros(len(like), 1, self.config.audio_channels)
        else:
            reference = F.pad(reference, (0, 0, 0, self.config.reference_len - reference.shape[1]))
        return self.reference_embedding(reference.to(self.reference_embedding[0].weight.dtype))

    def _check(
        self,
        video: Tensor | None,
        audio: Tensor | None,
        text: Tensor,
        video_sigma: Tensor | None,
        audio_sigma: Tensor | None,
        clean_frames: Tensor | None,
        reference: Tensor | None,
        blind_video: bool,
        cache: VideoCache | None,
    ) -> None:
        """Raise on what does not fit together; see :meth:`forward`."""
        config = self.config
        for stream, latent, sigma, channels, axes in (
            ("video", video, video_sigma, config.video_channels, 5),
            ("audio", audio, audio_sigma, config.audio_channels, 3),
        ):
            if latent is None:
                continue
            if stream not in self.streams:
                raise ValueError(f"{stream} was given to a model built with streams={self.streams}")
            if latent.ndim != axes or latent.shape[1] != channels:
                raise ValueError(
                    f"{stream} has shape {tuple(latent.shape)}; {axes} axes, the second {channels}, expected"
                )
            if sigma is None or sigma.shape != latent.shape[:1]:
                raise ValueError(f"{stream}_sigma must have shape ({len(latent)},), one noise level a sample")
        if video is None and audio is None:
            raise ValueError("give video, audio or both")
        if video is not None and any(size % patch for size, patch in zip(video.shape[3:], config.patch[1:])):
            raise ValueError(
                f"video latents of {tuple(video.shape[3:])} do not divide into patches of {config.patch[1:]}"
            )
        if clean_frames is not None and (video is None or clean_frames.shape[-1] != video.shape[2]):
            raise ValueError("clean_frames must name one flag for each latent frame of the video")
        if text.shape[1] > config.text_len or text.shape[2] != config.text_dim:
            raise ValueError(f"text has shape {tuple(text.shape)}; at most {config.text_len} rows of {config.text_dim}")
        rows, width = config.reference_len, config.audio_channels
        if reference is not None and (reference.shape[1] > rows or reference.shape[2] != width):
            raise ValueError(f"reference has shape {tuple(reference.shape)}; at most {rows} rows of {width}")
        if blind_video and (audio is None or (video is None and (cache is None or not cache.filled))):
            raise ValueError("blind_video needs both streams")
        if cache is not None and (not blind_video or torch.is_grad_enabled()):
            raise ValueError("a video cache needs blind_video and torch.no_grad()")
