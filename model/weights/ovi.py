"""Ovi's audio twin (arXiv 2510.01284) as a start for the audio stream.

Its checkpoint holds ``video_model.*`` and ``audio_model.*`` in Wan's names. The blocks fit; its fusion layers have no
place in joint attention, and its ends are for another codec's channels.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from model.config import ModelConfig

PREFIX = "audio_model."
UNUSED = {
    "video_model.*": "only the audio twin is a start",
    f"{PREFIX}*_fusion.*": "joint attention takes the place of Ovi's fusion layers",
}
INPUT = ("patch_embedding.0.weight", "patch_embedding.0.bias")
OUTPUT = ("head.head.weight", "head.head.bias")


def to_wan(key: str) -> str | None:
    """Wan's name of a key of the audio twin, None for the rest of the checkpoint."""
    if not key.startswith(PREFIX):
        return None
    return key.removeprefix(PREFIX).replace(".modulation.modulation", ".modulation")


def foreign(weights: Mapping[str, Tensor], config: ModelConfig) -> dict[str, str]:
    """Patterns of the twin's keys, in Wan's names, that do not fit this configuration, each with the reason."""
    channels = weights[f"{PREFIX}{INPUT[0]}"].shape[1]
    patterns = {}
    if config.audio_input == "linear":
        patterns["patch_embedding.*"] = "Ovi's audio input is convolutional, ours linear"
    elif channels != config.audio_channels:
        patterns |= dict.fromkeys(INPUT, f"Ovi's is made for {channels} channels")
    if channels != config.audio_channels:
        patterns |= dict.fromkeys(OUTPUT, f"Ovi's is made for {channels} channels")
    return patterns
