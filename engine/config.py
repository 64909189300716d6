"""Strict configuration: YAML files checked by pydantic, with ``--set a.b=c`` on top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

Model = TypeVar("Model", bound=BaseModel)


class ConfigError(Exception):
    """The user's configuration is wrong; the message says which key and what to change."""


class Strict(BaseModel):
    """Base of configuration models: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Pool(Strict):
    """Actors of a group on Ray: how many, and what each one takes."""

    min_actors: int = Field(1, ge=1)
    max_actors: int = Field(1, ge=1)
    cpus: float = Field(1.0, gt=0)
    gpus: float = Field(0.0, ge=0)


class GroupConfig(Strict):
    """Stages that share one decode of a clip and one pool of actors, in order.

    ``stages`` maps a stage's name to its settings; ``batch_size`` clips are decoded and scored together and
    reach the ledger together. ``time_limit_s`` bounds one step (decoding, or one stage) of one clip,
    ``memory_limit_gb`` the whole guarded process.
    """

    name: str
    stages: dict[str, dict[str, Any]]
    pool: Pool = Pool()
    batch_size: int = Field(8, ge=1)
    time_limit_s: float = Field(120.0, gt=0)
    memory_limit_gb: float = Field(6.0, gt=0)


class ExecutorConfig(Strict):
    """``ray``: actor pools on the cluster at ``address`` (``local`` starts one here); ``local``: a loop."""

    kind: str = Field("ray", pattern="^(ray|local)$")
    address: str = "auto"
    retry_budget: int = Field(2, ge=1, description="attempts at a clip that fails before it stands in quarantine")


def load(path: str | Path, model: type[Model], overrides: Sequence[str] = ()) -> Model:
    """Read a YAML file, apply ``key.sub=value`` overrides (values are YAML) and validate.

    Raises:
        ConfigError: no such file, not YAML, an unknown or ill-typed key, an override that is not ``key=value``.
    """
    try:
        content = yaml.safe_load(Path(path).read_text("utf-8")) or {}
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected keys and values, found {type(content).__name__}")
    for override in overrides:
        _apply(content, override)
    try:
        return model.model_validate(content)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc'])) or '(top)'}: {e['msg']}" for e in error.errors()]
        raise ConfigError(f"{path} is not valid:\n" + "\n".join(lines)) from None


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Values of two contents that differ, by their dotted keys, for a message."""
    there, here = _flat(theirs), _flat(ours)
    names = [name for name in here | there if there.get(name) != here.get(name)]
    return [f"{name}: {there.get(name)} there, {here.get(name)} here" for name in names]


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in content.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _apply(content: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set takes key.sub=value, not {override!r}")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {key}: {text!r} is not a YAML value: {error}") from None
    *parents, leaf = key.split(".")
    node: Any = content
    for part in parents:
        node = _child(node, part, override)
    if isinstance(node, list):
        node[_index(node, leaf, override)] = value
    else:
        node[leaf] = value


def _child(node: Any, part: str, override: str) -> Any:
    if isinstance(node, list):
        return node[_index(node, part, override)]
    child = node.setdefault(part, {})
    if child is None:
        child = node[part] = {}
    if not isinstance(child, dict | list):
        raise ConfigError(f"--set {override!r}: {part} is a value, not a section")
    return child


def _index(node: list[Any], part: str, override: str) -> int:
    """A list entry by number, or by the ``name`` of its sections (``groups.measures.batch_size=4``)."""
    for index, entry in enumerate(node):
        if isinstance(entry, dict) and entry.get("name") == part:
            return index
    if part.isdigit() and int(part) < len(node):
        return int(part)
    raise ConfigError(f"--set {override!r}: no entry {part!r} in that list")
