"""What licences permit, as data, and what is permitted where several meet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

REGISTRY_FILE = Path(__file__).with_name("licences.yaml")
PERMISSIONS = ("commercial", "redistribution", "derivatives", "any_model")
DUTIES = ("attribution", "share_alike")


class Licence(BaseModel):
    """Terms of one licence; None is unknown.

    Attributes:
        commercial: commercial use is permitted.
        redistribution: copies may be passed on; ``derivatives``: changed ones too.
        any_model: models of every kind may be improved with the work.
        attribution: the author must be named.
        share_alike: changed copies keep the licence.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    title: str = "not known"
    url: str = ""
    commercial: bool | None = None
    redistribution: bool | None = None
    derivatives: bool | None = None
    any_model: bool | None = None
    attribution: bool | None = None
    share_alike: bool | None = None


@lru_cache
def registry(path: Path = REGISTRY_FILE) -> Mapping[str, Licence]:
    return {name: Licence.model_validate(terms) for name, terms in yaml.safe_load(path.read_text("utf-8")).items()}


def lookup(name: str) -> Licence:
    """Terms by name, in any case; all of them unknown for a name that is not registered."""
    folded = {known.casefold(): terms for known, terms in registry().items()}
    return folded.get(name.strip().casefold(), Licence())


def together(licences: Iterable[Licence]) -> dict[str, bool | None]:
    """What holds for works under all of them at once.

    Permitted is what all permit and forbidden what one forbids, else it is unknown; a duty of one is a duty of all.
    """
    licences = list(licences)
    result: dict[str, bool | None] = {}
    for name in (*PERMISSIONS, *DUTIES):
        values = {getattr(licence, name) for licence in licences}
        decisive = name in DUTIES
        result[name] = decisive if decisive in values else None if None in values or not values else not decisive
    return result
