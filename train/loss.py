"""Flow matching on a task: noise the latents, predict ``noise - data``, average within each modality, then sum.

Averages are taken over a sample's noisy latents first and over samples then, so that the loss of a batch is the mean
of the losses of its parts, however it is cut; and a stream's many tokens do not drown the other's few
(:mod:`model.tasks` says which streams a task noises).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from model.config import Stream
from model.tasks import Task
from model.transformer import UniTalking
from train.batch import Batch
from train.config import DropConfig, NoiseConfig
from train.step_random import StepRandom


class NoisyBatch(NamedTuple):
    """A task's inputs and targets.

    Attributes:
        inputs: keyword arguments of :class:`~model.transformer.UniTalking`.
        targets: ``noise - data`` of the generated streams, shaped as their latents.
        sigmas: (B,) noise level of each generated stream, on the CPU.
        weights: per generated stream, 1 where the target counts, broadcastable to it, or None: everywhere.
    """

    inputs: dict[str, Tensor | bool | None]
    targets: dict[Stream, Tensor]
    sigmas: dict[Stream, Tensor]
    weights: dict[Stream, Tensor | None]


def add_noise(
    batch: Batch, task: Task, *, seed: int, step: int, noise: NoiseConfig, drop: DropConfig | None
) -> NoisyBatch:
    """The batch with the noise of a step: what the network gets, a function of the arguments alone.

    Args:
        batch: on the network's device.
        drop: None drops nothing.

    Raises:
        ValueError: the task needs video, which the batch lacks.
    """
    rng = StepRandom(seed, step, batch.names, batch.audio.device)
    sigma = rng.sigma("sigma", noise)
    levels = {"video": rng.sigma("video sigma", noise) if noise.independent else sigma, "audio": sigma}
    return add_noise_at(batch, task, rng, levels, dropped=rng.dropped(drop) if drop else None)


def add_noise_at(
    batch: Batch,
    task: Task,
    rng: StepRandom,
    levels: dict[Stream, Tensor],
    dropped: tuple[Tensor, Tensor] | None = None,
) -> NoisyBatch:
    """The batch with noise of the given ``levels`` (B,) of each stream, and with some samples' conditions dropped.

    Args:
        dropped: which samples lose their text and which their reference, bool (B,) each.
    """
    device = batch.audio.device
    text, reference = batch.text(task.name), batch.reference if task.reference else None
    if dropped is not None:
        drop_text, drop_reference = (flags.to(device)[:, None, None] for flags in dropped)
        text = torch.where(drop_text, batch.null_text, text)
        if reference is not None:
            reference = reference.masked_fill(drop_reference, 0.0)
    inputs = {"text": text, "reference": reference, "audio_lengths": batch.audio_lengths}
    targets, weights = {}, {}

    for stream in task.streams:
        data = getattr(batch, stream)
        if data is None:
            raise ValueError(f"{task.name} needs video, which was not read")
        level = levels[stream].to(device)
        if stream == "video" and task.video == "given":
            inputs |= {"video": data, "video_sigma": torch.zeros_like(level), "blind_video": task.blind_video}
            continue
        eps = rng.normal(stream, data.shape[1:])
        x = torch.lerp(data, eps, level.view(-1, *[1] * (data.ndim - 1)))
        weights[stream] = None
        if stream == "video" and task.video == "first_frame":
            clean = task.clean_frames(data.shape[2], device)
            inputs["clean_frames"] = clean
            x = torch.where(clean[:, None, None], data, x)
            weights[stream] = (~clean).float()[:, None, None]
        if stream == "audio" and batch.audio_lengths is not None:
            weights[stream] = (torch.arange(data.shape[2], device=device) < batch.audio_lengths[:, None])[
                :, None
            ].float()
        inputs |= {stream: x, f"{stream}_sigma": level}
        targets[stream] = eps - data
    return NoisyBatch(inputs, targets, {stream: levels[stream] for stream in targets}, weights)


def losses(model: UniTalking, batch: NoisyBatch) -> dict[Stream, Tensor]:
    """Squared error of each generated stream, (B,) float32: the mean over a sample's noisy latents."""
    velocity = model(**batch.inputs)
    result = {}
    for stream, target in batch.targets.items():
        error = (getattr(velocity, stream) - target).square()
        weight = batch.weights[stream]
        if weight is None:
            result[stream] = error.flatten(1).mean(1)
        else:
            counted = weight.expand_as(error).flatten(1).sum(1)
            result[stream] = (error * weight).flatten(1).sum(1) / counted
    return result
