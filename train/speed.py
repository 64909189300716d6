"""Tokens, operations and memory of steps: what the hardware did, and what the model needed of it.

Model FLOPs utilisation counts what the mathematics needs: the forward pass with its joint attention as TV2A's mask
leaves it, twice that backward (frozen weights need no gradient of their own). Hardware FLOPs utilisation
adds what activation checkpointing computes again. Neither counts the recomputation inside flash attention.
"""

from __future__ import annotations

import resource
from functools import lru_cache
from typing import NamedTuple

import torch

from model.config import ModelConfig
from model.flops import forward_flops
from model.tasks import Task
from train.batch import Batch
from train.config import ParallelConfig

PEAK_TFLOPS = {  # dense bfloat16, of the makers' data sheets
    "A100": 312.0,
    "H100": 989.0,
    "H200": 989.0,
    "B200": 2250.0,
}


class Operations(NamedTuple):
    """Of one sample's training step: ``model`` as needed, ``hardware`` as computed."""

    model: float
    hardware: float


@lru_cache(maxsize=4096)
def sample_operations(
    config: ModelConfig,
    task: Task,
    *,
    video: tuple[int, int, int] | None,
    audio: int,
    checkpointing: str = "none",
    trained: float = 1.0,
) -> Operations:
    """Operations of a sample's forward and backward pass.

    Args:
        video: latent frames, rows and columns; not used by tasks without video.
        audio: latents.
        checkpointing: of :class:`~train.config.ParallelConfig`.
        trained: share of the weights that learn.
    """
    forward = forward_flops(
        config,
        video=video if "video" in task.streams else None,
        audio=audio,
        reference=task.reference,
        blind_video=task.blind_video,
        clean_frames=task.video == "first_frame",
    )
    attention = forward.joint + forward.cross
    model = forward.linear * (2 + trained) + attention * 3
    again = {"none": 0, "selective": forward.linear, "full": forward.total}[checkpointing]
    return Operations(model, model + again)


class Speed:
    """Collects steps between two reports.

    Args:
        trained: share of the weights that learn.
        ranks: that share the work.
    """

    def __init__(
        self,
        config: ModelConfig,
        parallel: ParallelConfig,
        *,
        trained: float,
        device: torch.device,
        ranks: int,
        peak_tflops: float | None,
    ) -> None:
        self._config, self._checkpointing, self._trained = config, parallel.checkpointing, trained
        self._device, self._ranks = device, ranks
        self._peak = 1e12 * (peak_tflops or _known_peak(device) or 0.0)
        self._tokens = self._model = self._hardware = 0.0

    def add(self, task: Task, batch: Batch, samples: int) -> None:
        """A step of ``samples`` in all that are shaped like this rank's."""
        video = None if batch.video is None else tuple(batch.video.shape[2:])
        audio = batch.audio.shape[2]
        operations = sample_operations(
            self._config, task, video=video, audio=audio, checkpointing=self._checkpointing, trained=self._trained
        )
        self._model += samples * operations.model
        self._hardware += samples * operations.hardware
        patch = self._config.patch
        frames = 0 if "video" not in task.streams else video[0] * (video[1] // patch[1]) * (video[2] // patch[2])
        self._tokens += samples * (frames + audio)

    def take(self, seconds: float) -> dict[str, float]:
        """Since the last call, which was so long ago; rates are of all ranks, utilisation and memory of one."""
        found = {
            "speed/tokens_s": self._tokens / seconds,
            "speed/tflops": self._model / seconds / 1e12,
            "memory/gb": self._memory() / 1e9,
        }
        if self._peak:
            found["speed/mfu"] = self._model / seconds / self._ranks / self._peak
            found["speed/hfu"] = self._hardware / seconds / self._ranks / self._peak
        self._tokens = self._model = self._hardware = 0.0
        return found

    def _memory(self) -> float:
        """The peak so far, in bytes: of the GPU, or of the process."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _known_peak(device: torch.device) -> float | None:
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for known, peak in PEAK_TFLOPS.items() if known in name), None)
