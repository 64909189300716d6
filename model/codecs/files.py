"""Model files of codecs and text encoders: where a configuration's values lie, and whose models they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import BaseModel

from kit.weights import ModelUse, locate, model_use

# The fields of each kind that name files, and the registered model whose terms hold for a file given by its path.
FILES = {
    "wan22": {"weights": "wan2.2-vae"},
    "mmaudio": {"vae": "mmaudio-44k", "vocoder": "bigvgan"},
    "umt5": {"weights": "umt5-xxl", "tokenizer": "umt5-xxl"},
}


def locate_files(config: BaseModel) -> dict[str, Path]:
    """Places of the files that a codec's configuration names, by field; none for codecs without weights.

    Raises:
        WeightsError: a file that is neither at a path nor in the cache.
    """
    values = _values(config)
    places = locate(values.values())
    return {field: places[value] for field, value in values.items()}


def file_values(configs: Iterable[BaseModel]) -> list[str]:
    """All that configurations name files by, to be located at once: what is missing is then named at once."""
    return [value for config in configs for value in _values(config).values()]


def models_behind(parts: Mapping[str, BaseModel]) -> list[ModelUse]:
    """Models of codecs and text encoders by configuration, and where in it: ``audio_codec``.

    Raises:
        WeightsError: a registered model has no such file.
    """
    return [
        model_use(value, f"{part}.{field}", stands_for=FILES[config.kind][field], hashed=True)
        for part, config in parts.items()
        for field, value in _values(config).items()
    ]


def models_of_kinds(kinds: Mapping[str, str]) -> list[ModelUse]:
    """As :func:`models_behind`, of latents of which only the kinds of their codecs are known."""
    return [
        model_use(f"{part}.{field}", f"{part}.{field}", stands_for=name)
        for part, kind in kinds.items()
        for field, name in FILES.get(kind, {}).items()
    ]


def _values(config: BaseModel) -> dict[str, str]:
    return {field: str(getattr(config, field)) for field in FILES.get(config.kind, {})}
