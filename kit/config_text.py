"""The text of ``--show-config``: a resolved configuration as YAML that explains itself and loads back.

Every field has its description above it and, behind it, where its value came from: the file, ``--set`` or the default.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import yaml
from pydantic import BaseModel

from kit.config import Content, Place, check
from kit.fields import describe_fields, summary

FILE, SET, DEFAULT = "the file", "--set", "default"
WIDTH = 96
SettingsOf = Callable[[Place], type[BaseModel] | None]


def no_settings(place: Place) -> None:
    """Of a configuration all of whose sections are models."""


def config_text(config: BaseModel, content: Content, settings_of: SettingsOf = no_settings) -> str:
    """Return the YAML text of ``config``, which was validated from ``content``.

    Args:
        settings_of: the model of a section that the configuration itself keeps as plain keys and values, by its place,
            for sections that have one. Their settings that are left at the default are shown as comments, so that what
            is loaded back is the same.
    """
    text = _Text(content, settings_of)
    lines = [*_comment(f"{summary(type(config))} Read from {content.path}."), *text.fields(config, (), given=True)]
    return "\n".join(lines)


class _Text:
    def __init__(self, content: Content, settings_of: SettingsOf) -> None:
        self._content, self._settings_of = content, settings_of

    def fields(self, config: BaseModel, place: Place, *, given: bool) -> Iterator[str]:
        """Lines of all fields; those of a section that is not ``given`` are defaults."""
        plain, texts = config.model_dump(mode="json"), describe_fields(type(config))
        for name in type(config).model_fields:
            here = (*place, name)
            given_here = given and name in config.model_fields_set
            origin = self._origin(here, type(config)) if given_here else DEFAULT
            yield from _comment(texts[name])
            yield from self._entry(name, getattr(config, name), plain[name], here, origin)

    def _entry(self, key: str, value: Any, plain: Any, place: Place, origin: str) -> Iterator[str]:
        """Lines of a key and its value; ``plain`` is the value as JSON."""
        head, given = f"{_flow(key)}:", origin != DEFAULT
        if isinstance(value, BaseModel) and plain:
            yield f"{head}  # {origin}"
            yield from _indented(self.fields(value, place, given=given))
        elif isinstance(value, list | tuple) and any(isinstance(item, BaseModel) for item in value):
            yield f"{head}  # {origin}"
            for number, item in enumerate(value):
                first, *rest = self.fields(item, (*place, number), given=given)
                yield from (f"  - {first}", *(f"    {line}" for line in rest))
        elif isinstance(value, Mapping) and (model := self._settings_of(place)):
            yield from self._settings(head, value, model, place, origin)
        elif isinstance(value, Mapping) and value:
            yield f"{head}  # {origin}"
            for name, inner in value.items():
                here = (*place, name)
                yield from _indented(
                    self._entry(name, inner, plain[name], here, self._origin(here) if given else DEFAULT)
                )
        else:
            yield f"{head} {_flow(plain)}  # {origin}"

    def _settings(
        self, head: str, values: Mapping[str, Any], model: type[BaseModel], place: Place, origin: str
    ) -> Iterator[str]:
        """Lines of a plain section that ``model`` validates."""
        plain = check(values, model, ".".join(map(str, place))).model_dump(mode="json")
        texts = describe_fields(model)
        yield f"{head}  # {origin}" if values else f"{head} {{}}  # {origin}"
        for name in model.model_fields:
            yield from _indented(_comment(texts[name]))
            if name in values:
                here = (*place, name)
                yield from _indented(self._entry(name, values[name], values[name], here, self._origin(here)))
            else:
                yield from _indented([f"# {name}: {_flow(plain[name])}  # {DEFAULT}"])

    def _origin(self, place: Place, model: type[BaseModel] | None = None) -> str:
        """Where a value that was given came from; ``model`` is that of the section that it is in."""
        changed = self._content.changed
        if any(place[: len(other)] == other for other in changed):
            return SET
        if _holds(self._content.file, place):
            return FILE
        if any(other[: len(place)] == place for other in changed):
            return SET
        # Another key of the section stood for it, as a model's preset does.
        section = _at(self._content.values, place[:-1])
        for key in section if isinstance(section, dict) and model else ():
            if key not in model.model_fields:
                return f"{self._origin((*place[:-1], key))} ({key})"
        return FILE


def _holds(content: Any, place: Place) -> bool:
    """Whether ``content`` has a value there, or a plain value where the way to it leads through a section."""
    for key in place:
        if not isinstance(content, dict | list):
            return content is not None
        if (isinstance(content, dict) and key not in content) or (isinstance(content, list) and key >= len(content)):
            return False
        content = content[key]
    return True


def _at(content: Any, place: Place) -> Any:
    for key in place:
        content = content[key]
    return content


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, WIDTH)]


def _indented(lines: Iterator[str] | Sequence[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)


def _flow(value: Any) -> str:
    """A value as YAML in one line."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=float("inf"))
    text = text.removesuffix("\n").removesuffix("\n...")
    return json.dumps(value, ensure_ascii=False) if "\n" in text else text
