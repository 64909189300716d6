"""Strict configuration: YAML files checked by pydantic, with ``--set a.b=c`` on top."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from kit.errors import UserError

Model = TypeVar("Model", bound=BaseModel)
Place = tuple[str | int, ...]  # keys and list indices from the top


class ConfigError(UserError):
    """The user's configuration is wrong; the message says which key and what to change."""


class Strict(BaseModel):
    """Base of the house's configuration models: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Content:
    """What a configuration file says, and what ``--set`` makes of it.

    Attributes:
        path: of the file.
        file: keys and values as they are in the file.
        values: the same with the changes of ``--set``.
        changed: the places that ``--set`` named.
    """

    path: Path
    file: dict[str, Any]
    values: dict[str, Any]
    changed: tuple[Place, ...]


def load(path: str | Path, model: type[Model], overrides: Sequence[str] = ()) -> Model:
    """Read a YAML file, apply ``key.sub=value`` overrides (values are YAML) and validate.

    Raises:
        ConfigError: no such file, not YAML, an unknown or ill-typed key, an override that is not ``key=value``.
    """
    return check(read(path, overrides).values, model, str(path))


def read(path: str | Path, overrides: Sequence[str] = ()) -> Content:
    """Read a YAML file and apply overrides, without a look at what the keys mean.

    Raises:
        ConfigError: no such file, not YAML, an override that is not ``key=value`` or names nothing.
    """
    try:
        content = yaml.safe_load(Path(path).read_text("utf-8")) or {}
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected keys and values, found {type(content).__name__}")
    values = copy.deepcopy(content)
    changed = tuple(_apply(values, override) for override in overrides)
    return Content(Path(path), content, values, changed)


def check(values: Mapping[str, Any], model: type[Model], where: str) -> Model:
    """Validate ``values``.

    Raises:
        ConfigError: each key that is wrong, and ``where``.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc'])) or '(top)'}: {e['msg']}" for e in error.errors()]
        raise ConfigError(f"{where} is not valid:\n" + "\n".join(lines)) from None


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


def _apply(content: dict[str, Any], override: str) -> Place:
    """Change ``content``; return the place that was changed."""
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise ConfigError(f"--set takes key.sub=value, not {override!r}")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {name}: {text!r} is not a YAML value: {error}") from None
    node: Any = content
    place: list[str | int] = []
    *parents, leaf = name.split(".")
    for part in parents:
        place.append(_key(node, part, override))
        node = _child(node, place[-1], override)
    place.append(_key(node, leaf, override))
    node[place[-1]] = value
    return tuple(place)


def _child(node: Any, key: str | int, override: str) -> Any:
    if isinstance(node, dict) and node.get(key) is None:
        node[key] = {}
    if not isinstance(node[key], dict | list):
        raise ConfigError(f"--set {override!r}: {key} is a value, not a section")
    return node[key]


def _key(node: Any, part: str, override: str) -> str | int:
    """A key of a section; of a list the entry's number, or the ``name`` of its section
    (``groups.measures.batch_size=4``)."""
    if isinstance(node, dict):
        return part
    for index, entry in enumerate(node):
        if isinstance(entry, dict) and entry.get("name") == part:
            return index
    if part.isdigit() and int(part) < len(node):
        return int(part)
    raise ConfigError(f"--set {override!r}: no entry {part!r} in that list")
