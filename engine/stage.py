"""The stage contract: what every scorer is, and what it may answer. No Ray here.

A stage measures; it holds no threshold and knows no pool size. It answers one outcome an item, in the
items' order, and never raises for one bad item it can name: it answers :class:`Failure` instead. (An
exception that escapes all the same is caught by the runner, which repeats the batch item by item.)
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import pyarrow as pa

from engine.items import Clip
from kit.config import Strict
from media.clip import ClipMedia

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Value:
    """Measured: the stage's columns by name. ``None`` in a column means that this one has no value."""

    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class NotApplicable:
    """The measure has no meaning for this item (no face, no audio track); ``reason`` says why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Failure:
    """Could not be measured. ``kind`` is one of ``FAILURE_KINDS``; ``message`` is for a person."""

    kind: str
    message: str


Outcome = Value | NotApplicable | Failure

# "media" is the item's own fault and final at once; the others may pass on another attempt.
FAILURE_KINDS = ("media", "io", "error", "timeout", "crash", "memory")
FINAL_KINDS = frozenset({"media"})


@dataclass(frozen=True, slots=True)
class OpenClip:
    """A clip with its media decoded, shared by all stages of a group."""

    clip: Clip
    media: ClipMedia


@dataclass(frozen=True, slots=True)
class Resources:
    """What one actor of a stage takes: CPU cores, GPUs (fractions allowed), memory in bytes."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory: int = 0


class StageConfig(Strict):
    """Base of every stage's settings: frozen, and an unknown key is an error."""


class Stage(ABC, Generic[Item]):
    """One scorer.

    Class attributes:
        name: table and configuration name, ``[a-z_]+``.
        version: raised whenever the same input may give another value.
        Config: the settings' type.
        needs: which parts of the media to decode: ``frames``, ``stills``, ``audio``. Empty: none.
        values: Arrow fields of what :class:`Value` holds, each with a ``description`` in its metadata.
        resources, batch_size: defaults, which a profile's pool may raise.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    Config: ClassVar[type[StageConfig]] = StageConfig
    needs: ClassVar[frozenset[str]] = frozenset()
    values: ClassVar[pa.Schema]
    resources: ClassVar[Resources] = Resources()
    batch_size: ClassVar[int] = 1

    def __init__(self, config: StageConfig | None = None) -> None:
        self.config = config if config is not None else self.Config()

    def weights(self) -> tuple[str, ...]:
        """Names in the weights registry that this configuration needs, in a fixed order."""
        return ()

    def setup(self, weights: Mapping[str, Path]) -> None:
        """Load models, once an actor. ``weights`` maps each of :meth:`weights` to its file."""

    @abstractmethod
    def score(self, items: Sequence[Item]) -> list[Outcome]:
        """Measure each item; ``len(result) == len(items)``, in the same order."""

    def close(self) -> None:
        """Release what :meth:`setup` took."""


def field(name: str, kind: pa.DataType, description: str) -> pa.Field:
    """A nullable value column with its meaning, unit and range in the metadata."""
    return pa.field(name, kind, metadata={"description": description})


INTERVALS = pa.list_(pa.struct([("start_s", pa.float32()), ("end_s", pa.float32())]))
SERIES = pa.list_(pa.float32())


def fingerprint(stage: Stage[Any], weight_hashes: Mapping[str, str]) -> str:
    """``<version>-<hash>`` of everything that decides a stage's table: settings, model files, columns."""
    decides = {
        "name": stage.name,
        "config": stage.config.model_dump(mode="json"),
        "weights": {name: weight_hashes[name] for name in stage.weights()},
        "columns": [f"{value.name} {value.type}" for value in stage.values],
    }
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
    return f"{stage.version}-{digest[:12]}"
