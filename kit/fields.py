"""Descriptions of a model's fields.

They are ``Field(description=…)``, else the ``Attributes:`` section of the model's docstring, else, for a section, what
the section's own model says of itself.
"""

from __future__ import annotations

import inspect
import re
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel

_NAMED = re.compile(r"(\w+(?:, \w+)*): (.*)")  # ``a, b: text`` describes both
_ROLE = re.compile(r":\w+:`~?([^`]*)`")


@cache
def describe_fields(model: type[BaseModel]) -> dict[str, str]:
    """Return a description of every field as plain text; ``""`` of one that has none."""
    found: dict[str, str] = {}
    for parent in reversed(model.__mro__):
        found |= _attributes(parent.__doc__ or "")
    return {
        name: _plain(field.description or found.get(name, "")) or _of_section(field.annotation)
        for name, field in model.model_fields.items()
    }


def summary(model: type[BaseModel]) -> str:
    """Return the first paragraph of the model's docstring."""
    return _plain(inspect.cleandoc(model.__doc__ or "").partition("\n\n")[0])


def _of_section(annotation: Any) -> str:
    """The summary of the one model that the annotation names."""
    kinds = (annotation, *get_args(annotation))
    models = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return summary(models[0]) if len(models) == 1 else ""


def _attributes(docstring: str) -> dict[str, str]:
    found: dict[str, str] = {}
    names: list[str] = []
    _, _, section = inspect.cleandoc(docstring).partition("\nAttributes:\n")
    for line in section.splitlines():
        if line and not line.startswith("    "):
            break
        if not line.startswith("     ") and (entry := _NAMED.match(line.strip())):
            names = entry[1].split(", ")
            found |= dict.fromkeys(names, entry[2])
        else:
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def _plain(text: str) -> str:
    """Without the markup of docstrings, in one line."""
    return " ".join(_ROLE.sub(r"`\1`", text).replace("``", "`").split())
