"""Keys of ``diffusers.WanTransformer3DModel``, spelt as Wan spells them."""

from __future__ import annotations

ENDS = {
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "proj_out": "head.head",
    "patch_embedding": "patch_embedding",
}
BLOCK = {
    "norm2": "norm3",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
    **{
        f"{theirs}.{name}": f"{ours}.{short}"
        for theirs, ours in (("attn1", "self_attn"), ("attn2", "cross_attn"))
        for name, short in (
            ("to_q", "q"),
            ("to_k", "k"),
            ("to_v", "v"),
            ("to_out.0", "o"),
            ("norm_q", "norm_q"),
            ("norm_k", "norm_k"),
        )
    },
}


def to_wan(key: str) -> str | None:
    """Wan's name of diffusers' ``key``, None for one that Wan does not have."""
    if key == "scale_shift_table":
        return "head.modulation"
    if key.startswith("blocks."):
        _, index, rest = key.split(".", 2)
        if rest == "scale_shift_table":
            return f"blocks.{index}.modulation"
        module, _, tensor = rest.rpartition(".")
        return f"blocks.{index}.{BLOCK[module]}.{tensor}" if module in BLOCK else None
    module, _, tensor = key.rpartition(".")
    return f"{ENDS[module]}.{tensor}" if module in ENDS else None
