"""Text to embeddings: zero rows past the text, as Wan gives them to its network."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from model.codecs.statistics import digest

_TOKEN = re.compile(r"\w+|[^\w\s]")


class TextEncoder(Protocol):
    """Prompts to rows of features.

    Attributes:
        length: rows of an embedding; longer texts are cut.
        width: features of a row.
        fingerprint: hash of all that decides the embeddings.
    """

    length: int
    width: int
    fingerprint: str

    def encode(self, texts: Sequence[str]) -> Tensor:
        """(len(texts), length, width) float32, zeros past each text's end."""


class WordEncoder:
    """Fixed random features of lower-case words and punctuation plus fixed random features of their places.

    Weightless and the same on every machine: each vector is drawn from the hash of its word. Cross-attention knows no
    order, so the places must be in the features.
    """

    def __init__(self, length: int = 32, width: int = 64) -> None:
        self.length, self.width = length, width
        self.fingerprint = digest("words-1", length, width)

    def encode(self, texts: Sequence[str]) -> Tensor:
        """See :meth:`TextEncoder.encode`."""
        rows = np.zeros((len(texts), self.length, self.width), np.float32)
        for text, row in zip(texts, rows):
            for place, word in enumerate(_TOKEN.findall(text.lower())[: self.length]):
                row[place] = _features(f"word {word}", self.width) + _features(f"place {place}", self.width)
        return torch.from_numpy(rows)


@lru_cache(maxsize=1 << 16)
def _features(name: str, width: int) -> np.ndarray:
    """float32 (width,) of unit variance, drawn by the hash of ``name``; uniform, which every machine draws alike."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    return (np.random.Generator(np.random.Philox(seed)).random(width) * 2 - 1).astype(np.float32) * np.float32(3**0.5)
