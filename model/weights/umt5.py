"""Keys of Wan's own UMT5 checkpoint (``wan/modules/t5.py``) as transformers' ``UMT5EncoderModel`` names them."""

from __future__ import annotations

_ENDS = {"token_embedding.weight": "shared.weight", "norm.weight": "encoder.final_layer_norm.weight"}
_PARTS = {
    "norm1": "layer.0.layer_norm",
    "attn.q": "layer.0.SelfAttention.q",
    "attn.k": "layer.0.SelfAttention.k",
    "attn.v": "layer.0.SelfAttention.v",
    "attn.o": "layer.0.SelfAttention.o",
    "pos_embedding.embedding": "layer.0.SelfAttention.relative_attention_bias",
    "norm2": "layer.1.layer_norm",
    "ffn.gate.0": "layer.1.DenseReluDense.wi_0",
    "ffn.fc1": "layer.1.DenseReluDense.wi_1",
    "ffn.fc2": "layer.1.DenseReluDense.wo",
}


def to_transformers(key: str) -> str | None:
    """transformers' name of a native key; None for one that is not of this encoder."""
    if key in _ENDS:
        return _ENDS[key]
    if not key.startswith("blocks."):
        return None
    _, index, rest = key.split(".", 2)
    part = _PARTS.get(rest.removesuffix(".weight"))
    return part and f"encoder.block.{index}.{part}.weight"
