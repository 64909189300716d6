"""Classifier-free guidance along a chain of conditions, with scales of its own for video and for audio.

The conditions of a request are ordered image, reference, text, and added one after the other::

    v = v(nothing) + w_image (v(image) - v(nothing)) + w_reference (v(image, reference) - v(image))
      + w_text (v(image, reference, text) - v(image, reference))

(InstructPix2Pix, https://arxiv.org/abs/2211.09800, eq. 3, for three conditions.) Every pass lacks what training drops:
text, reference or both. With all scales equal it is the usual ``v(null) + w (v(all) - v(null))`` of two passes; with
``w_text`` alone other than 1 it is Wan's image-to-video guidance, which keeps the image in both. Written as a weighted
sum of passes, those of weight 0 are never computed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from pydantic import Field, model_validator

from kit.config import Strict

Condition = Literal["image", "reference", "text"]
CHAIN: tuple[Condition, ...] = ("image", "reference", "text")


class Scales(Strict):
    """How far to go in the direction of each condition: 1 follows the model as it is, 0 ignores the condition.

    Attributes:
        text: scale of the prompt.
        image: scale of the first frame.
        reference: scale of the reference voice.
    """

    text: float = Field(1.0, ge=0)
    image: float = Field(1.0, ge=0)
    reference: float = Field(1.0, ge=0)


class Guidance(Strict):
    """Scales of both streams.

    Attributes:
        video, audio: how far to go in the direction of each condition.
        skip_layers: left out of every pass that lacks a condition, which makes it a worse model to move away from
            (skip-layer guidance; Ovi skips layer 11).
    """

    video: Scales = Scales()
    audio: Scales = Scales()
    skip_layers: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _skips_somewhere(self) -> Guidance:
        if self.skip_layers and self.video.text == self.audio.text == 1:
            raise ValueError(
                "skip_layers needs a text scale other than 1: no other pass is sure to be there to skip in"
            )
        return self


@dataclass(frozen=True)
class Pass:
    """One evaluation of the network: the conditions it sees and its weight in each stream's velocity."""

    conditions: frozenset[Condition]
    video: float
    audio: float


def passes(guidance: Guidance, conditions: Collection[Condition]) -> tuple[Pass, ...]:
    """The passes that ``guidance`` needs for a request with these conditions, the complete one last.

    Weights of each stream sum to 1. The complete pass is there even at weight 0.
    """
    chain = [condition for condition in CHAIN if condition in conditions]
    video, audio = (_weights([getattr(scales, c) for c in chain]) for scales in (guidance.video, guidance.audio))
    every = [Pass(frozenset(chain[:n]), video[n], audio[n]) for n in range(len(chain) + 1)]
    return tuple(p for p in every if p is every[-1] or p.video or p.audio)


def combine(velocities: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """The weighted sum of the passes' velocities in float32, any shape."""
    if len(velocities) == 1:
        return velocities[0].float()
    return sum(weight * velocity.float() for velocity, weight in zip(velocities, weights, strict=True) if weight)


def _weights(scales: Sequence[float]) -> list[float]:
    """Of the passes with 0, 1, … conditions: each scale adds its pass and takes away the one before."""
    steps = [1.0, *scales, 0.0]
    return [here - after for here, after in pairwise(steps)]
