"""Releases on disk: read them for training, verify them, write them.

The public names below are imported when they are first used, so ``import unitalking_data`` costs nothing.
:class:`ClipLoader` and :class:`ClipBatch` need the extra ``torch``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from unitalking_data.buckets import Bucket, Buckets
    from unitalking_data.dataset import ClipDataset
    from unitalking_data.decoders import DECODERS
    from unitalking_data.loader import ClipBatch, ClipLoader
    from unitalking_data.manifest import Manifest, ManifestError, read_manifest
    from unitalking_data.prompts import PromptConfig
    from unitalking_data.schema import REFS_SCHEMA, REJECTED_SCHEMA, meta_schema, scores_field
    from unitalking_data.shard import ShardError
    from unitalking_data.storage import Store
    from unitalking_data.verification import Verification, verify
    from unitalking_data.writer import ClipFiles, RejectedClip, ReleaseError, ReleaseWriter

__all__ = [
    "DECODERS",
    "REFS_SCHEMA",
    "REJECTED_SCHEMA",
    "Bucket",
    "Buckets",
    "ClipBatch",
    "ClipDataset",
    "ClipFiles",
    "ClipLoader",
    "Manifest",
    "ManifestError",
    "PromptConfig",
    "RejectedClip",
    "ReleaseError",
    "ReleaseWriter",
    "ShardError",
    "Store",
    "Verification",
    "meta_schema",
    "read_manifest",
    "scores_field",
    "verify",
]

_MODULES = {
    "buckets": ("Bucket", "Buckets"),
    "dataset": ("ClipDataset",),
    "decoders": ("DECODERS",),
    "loader": ("ClipBatch", "ClipLoader"),
    "manifest": ("Manifest", "ManifestError", "read_manifest"),
    "prompts": ("PromptConfig",),
    "schema": ("REFS_SCHEMA", "REJECTED_SCHEMA", "meta_schema", "scores_field"),
    "shard": ("ShardError",),
    "storage": ("Store",),
    "verification": ("Verification", "verify"),
    "writer": ("ClipFiles", "RejectedClip", "ReleaseError", "ReleaseWriter"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name's module when the name is first used (PEP 562)."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
