"""Keys of Wan2.2's own VAE checkpoint (``wan/modules/vae2_2.py``) as diffusers' ``AutoencoderKLWan`` names them."""

from __future__ import annotations

import re

_LEVEL = re.compile(r"(encoder|decoder)\.(?:down|up)samples\.(\d+)\.(?:down|up)samples\.(\d+)\.(.+)")
_ENDS = {"conv1": "quant_conv", "conv2": "post_quant_conv"}
_HALF = {
    "conv1": "conv_in",
    "head.0": "norm_out",
    "head.2": "conv_out",
    "middle.0": "mid_block.resnets.0",
    "middle.1": "mid_block.attentions.0",
    "middle.2": "mid_block.resnets.1",
}
_RESIDUAL = {
    "residual.0": "norm1",
    "residual.2": "conv1",
    "residual.3": "norm2",
    "residual.6": "conv2",
    "shortcut": "conv_shortcut",
}
_BLOCKS = {"encoder": ("down_blocks", "downsampler", 2), "decoder": ("up_blocks", "upsampler", 3)}


def to_diffusers(key: str) -> str | None:
    """diffusers' name of a native key; None for one that is not of this VAE."""
    for native, ours in _ENDS.items():
        if key.startswith(f"{native}."):
            return ours + key[len(native) :]
    if match := _LEVEL.fullmatch(key):
        half, level, place, rest = match.groups()
        blocks, sampler, resnets = _BLOCKS[half]
        # A level's residual blocks come first, what changes the size last.
        part = f"resnets.{place}" if int(place) < resnets else sampler
        return f"{half}.{blocks}.{level}.{part}.{_renamed(rest, _RESIDUAL)}"
    half, _, rest = key.partition(".")
    if half not in _BLOCKS:
        return None
    name = _renamed(rest, _HALF)
    if name.startswith("mid_block.resnets."):
        block, resnets, index, part = name.split(".", 3)
        name = f"{block}.{resnets}.{index}.{_renamed(part, _RESIDUAL)}"
    return f"{half}.{name}"


def _renamed(key: str, names: dict[str, str]) -> str:
    for native, ours in names.items():
        if key.startswith(f"{native}."):
            return ours + key[len(native) :]
    return key
