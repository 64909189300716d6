"""The table of tasks: what each of them noises, gives, hides and learns, as data.

A sample has one noise level; what is given is in the model's input clean, at level 0. The tasks are UniTalking's
(arXiv 2603.01418): text-to-speech is its first stage, the other four its second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from model.config import Stream


@dataclass(frozen=True)
class Task:
    """One row of the table.

    Attributes:
        name: as in recipes and on the sampler's command line.
        video: ``absent``; ``noisy``: all latent frames are generated; ``first_frame``: all but the first;
            ``given``: none.
        reference: whether a reference voice is given; without one the model gets the null reference.
        blind_video: whether video attends to video alone (audio attends to both all the same).
        stage: the training stage that it belongs to.
    """

    name: str
    video: Literal["absent", "noisy", "first_frame", "given"]
    reference: bool
    blind_video: bool
    stage: Literal[1, 2]

    @property
    def streams(self) -> tuple[Stream, ...]:
        """Streams that run; audio does in every task."""
        return ("audio",) if self.video == "absent" else ("video", "audio")

    @property
    def generated(self) -> tuple[Stream, ...]:
        """Streams with noise in them: those that have a loss and that sampling produces."""
        return ("video", "audio") if self.video in ("noisy", "first_frame") else ("audio",)

    def clean_frames(self, frames: int, device: torch.device | str | None = None) -> Tensor:
        """Bool (frames,): latent frames that are given. The others are noised and are in the loss."""
        clean = torch.full((frames,), self.video == "given", device=device)
        if self.video == "first_frame":
            clean[0] = True
        return clean


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("tts", video="absent", reference=False, blind_video=False, stage=1),
        Task("tts_ref", video="absent", reference=True, blind_video=False, stage=1),
        Task("t2av", video="noisy", reference=False, blind_video=False, stage=2),
        Task("ti2av", video="first_frame", reference=False, blind_video=False, stage=2),
        Task("tr2av", video="noisy", reference=True, blind_video=False, stage=2),
        Task("tv2a", video="given", reference=False, blind_video=True, stage=2),
    )
}
