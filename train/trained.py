"""Presets of trained parameters; the others keep the values that they start with."""

from __future__ import annotations

from fnmatch import fnmatchcase

from torch import nn

PRESETS: dict[str, tuple[str, ...]] = {
    "all": ("*",),
    "lora": ("*.lora_[ab]",),
    # stage 1, everything in the audio half: what a start without Wan's embeddings needs
    "audio_all": ("*",),
    # stage 1, the paper's list: input projection, projections of both attentions (with the reference's keys, values
    # and embedding) and FFN; and what it omits, though nothing of it is copied from Wan: the head, which starts at zero
    # and alone has 40 channels, the modulation, which starts at random, and the norms
    "paper": (
        "audio.patch_embedding.*",
        "reference_embedding.*",
        "blocks.*.audio.self_attn.[qkvo].*",
        "blocks.*.audio.cross_attn.[qkvo].*",
        "blocks.*.audio.cross_attn.[kv]_ref.*",
        "blocks.*.audio.ffn.*",
        "blocks.*.audio.*norm*",
        "blocks.*.audio.modulation",
        "audio.head.*",
    ),
}


def choose_trained(model: nn.Module, preset: str) -> None:
    """Set ``requires_grad`` of every parameter."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(fnmatchcase(name, pattern) for pattern in PRESETS[preset]))
