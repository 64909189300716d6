"""UMT5, the text encoder of Wan, from ``transformers``."""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase, UMT5Config, UMT5EncoderModel

from model.codecs.statistics import digest, weights_digest
from model.weights.load import load_strict, open_weights
from model.weights.umt5 import to_transformers

# The shape of UMT5-xxl's encoder.
RELEASED = {
    "vocab_size": 256_384,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10_240,
    "num_layers": 24,
    "num_heads": 64,
    "relative_attention_num_buckets": 32,
    "feed_forward_proj": "gated-gelu",
}


class UMT5Encoder(nn.Module):
    """UMT5 with Wan's tokenisation: special tokens, ``length`` tokens at most, zeros past the last one.

    Args:
        encoder: with its weights.
        tokenizer: of ``google/umt5-xxl``.
        length: rows of an embedding.
    """

    def __init__(self, encoder: UMT5EncoderModel, tokenizer: PreTrainedTokenizerBase, *, length: int = 512) -> None:
        super().__init__()
        self.encoder = encoder.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.length, self.width = length, encoder.config.d_model
        self.fingerprint = digest("umt5", weights_digest(encoder.state_dict()), _words(tokenizer), length)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """See :meth:`model.text.TextEncoder.encode`."""
        cleaned = [" ".join(html.unescape(html.unescape(text)).split()) for text in texts]
        tokens = self.tokenizer(
            cleaned, padding="max_length", truncation=True, max_length=self.length, return_tensors="pt"
        ).to(self.encoder.device)
        hidden = self.encoder(tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state.float()
        return hidden * tokens.attention_mask[:, :, None]


def _words(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of what cuts a text into tokens; how the last batch was padded and cut, it notes too."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    decisive = {name: value for name, value in content.items() if name not in ("padding", "truncation")}
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()


def load_umt5(path: Path, tokenizer: Path, *, length: int = 512) -> UMT5Encoder:
    """From a transformers folder, or Wan's own ``models_t5_umt5-xxl-enc-bf16.pth``.

    Raises:
        TensorsError: nothing there, or keys that do not fit; all are listed.
        OSError: no tokenizer in the folder.
    """
    folder = path.is_dir()
    config = UMT5Config.from_pretrained(path) if folder else UMT5Config(**RELEASED)
    with torch.device("meta"):
        encoder = UMT5EncoderModel(config)
    rename = _untied if folder else to_transformers
    load_strict(encoder, open_weights(path), rename=rename, may_miss={"encoder.embed_tokens.weight": "tied to shared"})
    encoder.tie_weights()
    return UMT5Encoder(encoder, AutoTokenizer.from_pretrained(tokenizer), length=length)


def _untied(key: str) -> str:
    return "shared.weight" if key == "encoder.embed_tokens.weight" else key
