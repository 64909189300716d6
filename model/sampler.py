"""From noise to latents: the pure function of a network, a task, noise and conditions.

Files, codecs and prompts are the business of :mod:`model.generate`; the trainer calls :func:`sample_latents` with
latents it already has.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from model.config import Stream
from model.guidance import Condition, Guidance, Pass, combine, passes
from model.schedule import TRAIN_STEPS, UniPC, wan_sigmas, wan_timesteps
from model.tasks import Task
from model.transformer import UniTalking
from model.video_cache import VideoCache

# Up to here guidance's passes go through the network as one batch: more tokens fill a device anyway, and cost memory.
JOINED_TOKENS = 8192
UNGUIDED = Guidance()


@dataclass(frozen=True)
class Latents:
    """Normalised float32 latents of a batch: video ``(B, Cv, F, h, w)``, None without one, and audio ``(B, Ca, L)``."""

    video: Tensor | None
    audio: Tensor


@dataclass(frozen=True)
class Conditions:
    """What a batch is conditioned on, on the network's device.

    Attributes:
        text: ``(B, text_len, text_dim)`` embeddings of the prompts.
        null_text: the same of the negative prompts, the empty prompt if there is none.
        image: ``(B, Cv, 1, h, w)`` latent of the first frame, for tasks that are given one.
        video: ``(B, Cv, F, h, w)`` latents of the whole video, for tasks that are given it.
        reference: ``(B, reference_len, Ca)`` latents of the reference voice, zero-padded, for tasks that are given one.
    """

    text: Tensor
    null_text: Tensor
    image: Tensor | None = None
    video: Tensor | None = None
    reference: Tensor | None = None


def initial_noise(seeds: Sequence[int], stream: Stream, shape: Sequence[int]) -> Tensor:
    """Standard normal float32 ``(len(seeds), *shape)`` on the CPU.

    Each sample's noise depends on its seed, the stream and the shape alone: not on its batch, not on the device, and
    audio of one seed does not follow the frames' size.
    """
    noise = torch.empty(len(seeds), *shape)
    for row, seed in zip(noise, seeds, strict=True):
        key = hashlib.sha256(f"{seed}|{stream}".encode()).digest()
        row.normal_(generator=torch.Generator().manual_seed(int.from_bytes(key[:8], "little", signed=True)))
    return noise


@torch.no_grad()
def sample_latents(
    model: UniTalking,
    task: Task,
    noise: Latents,
    conditions: Conditions,
    *,
    steps: int = 50,
    shift: float = 5.0,
    guidance: Guidance = UNGUIDED,
    on_step: Callable[[int], None] | None = None,
) -> Latents:
    """Integrate the flow from ``noise`` to data with Wan's UniPC.

    Args:
        model: in evaluation mode, of any float dtype; the state of the solver
            is float32 whatever that is.
        noise: standard normal, of the shapes to generate, on the model's device; no video where the task is given it.
        guidance: scales by stream and condition, see :mod:`model.guidance`.
        on_step: called with the number of finished steps.

    Returns:
        Latents of both streams. What is given is in them exactly as given: TI2AV's first frame, TV2A's video.

    Raises:
        ValueError: the task lacks what it must be given, or is given what it does not take.
    """
    _check(task, conditions)
    sigmas, timesteps = wan_sigmas(steps, shift), wan_timesteps(steps, shift)
    generates_video = "video" in task.generated
    video = _impose(noise.video if generates_video else conditions.video, conditions.image)
    audio = noise.audio
    video_solver, audio_solver = UniPC(sigmas), UniPC(sigmas)
    kinds: list[Condition] = ["text"]
    kinds += ["image"] * (conditions.image is not None) + ["reference"] * (conditions.reference is not None)
    needed = passes(guidance, kinds)
    grouped = _grouped(needed, guidance, _tokens(model, audio, video))
    groups = [_Group(model, task, group, noise, conditions, skip) for group, skip in grouped]
    video_weights, audio_weights = [p.video for p in needed], [p.audio for p in needed]
    for step, (sigma, timestep) in enumerate(zip(sigmas[:-1].tolist(), timesteps.tolist(), strict=True)):
        velocities = [pair for group in groups for pair in group(video, audio, sigma, timestep)]
        audio = audio_solver.step(audio, combine([a for _, a in velocities], audio_weights))
        if generates_video:
            video = video_solver.step(video, combine([v for v, _ in velocities], video_weights))
            video = _impose(video, conditions.image)
        if on_step:
            on_step(step + 1)
    return Latents(video, audio)


class _Group:
    """Passes that go through the network as one batch, pass after pass; what does not change is prepared once."""

    def __init__(
        self,
        model: UniTalking,
        task: Task,
        group: Sequence[Pass],
        noise: Latents,
        conditions: Conditions,
        skip_layers: Sequence[int],
    ) -> None:
        self._model, self._task, self._passes, self._noise, self._image = model, task, group, noise, conditions.image
        self._fixed: dict[str, Any] = {
            "text": self._by_pass("text", conditions.text, conditions.null_text),
            "blind_video": task.blind_video,
            "skip_blocks": tuple(skip_layers),
        }
        if conditions.reference is not None:
            null_reference = torch.zeros_like(conditions.reference)
            self._fixed["reference"] = self._by_pass("reference", conditions.reference, null_reference)
        if conditions.image is not None:
            clean = task.clean_frames(noise.video.shape[2], noise.video.device).expand(len(noise.video), -1)
            self._fixed["clean_frames"] = self._by_pass("image", clean, torch.zeros_like(clean))
        if conditions.video is not None:
            self._fixed["video"] = conditions.video.repeat(len(group), 1, 1, 1, 1)
            self._fixed["cache"] = VideoCache(model.config.layers)

    def __call__(
        self, video: Tensor | None, audio: Tensor, sigma: float, timestep: int
    ) -> list[tuple[Tensor | None, Tensor]]:
        """Velocities ``(video, audio)`` of each pass at a noise level."""
        count = len(self._passes)
        # float64: the network's embedding of time is to see Wan's integer
        level = torch.full((count * len(audio),), timestep / TRAIN_STEPS, dtype=torch.float64, device=audio.device)
        inputs = self._fixed | {"audio": audio.repeat(count, 1, 1), "audio_sigma": level}
        if self._task.video == "given":
            inputs["video_sigma"] = torch.zeros_like(level)
        elif video is not None:
            unseen = video
            if self._image is not None:
                unseen = _impose(video, (1 - sigma) * self._image + sigma * self._noise.video[:, :, :1])
            inputs |= {"video": self._by_pass("image", video, unseen), "video_sigma": level}
        velocity = self._model(**inputs)
        videos = [None] * count if velocity.video is None else velocity.video.chunk(count)
        return list(zip(videos, velocity.audio.chunk(count), strict=True))

    def _by_pass(self, condition: Condition, with_it: Tensor, without: Tensor) -> Tensor:
        return torch.cat([with_it if condition in p.conditions else without for p in self._passes])


def _tokens(model: UniTalking, audio: Tensor, video: Tensor | None) -> int:
    """Of a whole batch in one pass."""
    frames = 0 if video is None else video[0, 0].numel() // math.prod(model.config.patch)
    return len(audio) * (audio.shape[2] + frames)


def _grouped(needed: Sequence[Pass], guidance: Guidance, tokens: int) -> list[tuple[Sequence[Pass], Sequence[int]]]:
    """Passes to compute together, and the layers that those skip."""
    *weaker, complete = needed
    if tokens * len(needed) > JOINED_TOKENS:
        return [([p], guidance.skip_layers) for p in weaker] + [([complete], ())]
    if weaker and guidance.skip_layers:
        return [(weaker, guidance.skip_layers), ([complete], ())]
    return [(needed, ())]


def _impose(video: Tensor | None, image: Tensor | None) -> Tensor | None:
    """The video with ``image`` ``(B, C, 1, h, w)`` for its first frame."""
    return video if image is None else torch.cat([image, video[:, :, 1:]], dim=2)


def _check(task: Task, conditions: Conditions) -> None:
    wanted = {"image": task.video == "first_frame", "video": task.video == "given", "reference": task.reference}
    for name, needed in wanted.items():
        if needed != (getattr(conditions, name) is not None):
            raise ValueError(f"{task.name} {'needs' if needed else 'takes no'} {name}")
