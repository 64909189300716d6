"""The registry of model files (``configs/weights.yaml``) and their cache, see ``docs/weights.md``.

A job never downloads while it runs: :func:`resolve` and :func:`locate` name what is missing and the command that
fetches it, before any work starts. ``python -m kit.weights fetch NAME…`` downloads. A file takes its place in the cache
once its size and hash are what the registry says; where no hash is published, the hash of the first fetch is pinned in
a lock file.
"""

from __future__ import annotations

from kit.weights.cache import cache_dir, cached_path, file_hash, find, locate, resolve
from kit.weights.entries import (
    FetchError,
    Weight,
    WeightFile,
    WeightsError,
    WeightSource,
    is_registered,
    lookup,
    registry,
)
from kit.weights.sources import fetch
from kit.weights.terms import ModelUse, model_use

__all__ = [
    "FetchError",
    "ModelUse",
    "Weight",
    "WeightFile",
    "WeightSource",
    "WeightsError",
    "cache_dir",
    "cached_path",
    "fetch",
    "file_hash",
    "find",
    "is_registered",
    "locate",
    "lookup",
    "model_use",
    "registry",
    "resolve",
]
