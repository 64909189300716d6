"""What licences permit, as data, and what holds for works under several of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from unitalking_data.strict import Strict

REGISTRY_FILE = Path(__file__).with_name("licences.json")
PERMISSIONS = ("commercial", "redistribution", "derivatives", "any_model")
DUTIES = ("attribution", "share_alike")


class Licence(Strict):
    """Terms of one licence; None is unknown.

    Attributes:
        commercial: commercial use is permitted.
        redistribution: copies may be passed on; ``derivatives``: changed ones too.
        any_model: models of every kind may be improved with the work.
        attribution: the author must be named.
        share_alike: changed copies keep the licence.
    """

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
    """Terms by the name of the licence, as ``licences.json`` has them."""
    return {name: Licence.model_validate(terms) for name, terms in json.loads(path.read_text("utf-8")).items()}


def lookup(name: str) -> Licence:
    """Terms by name, in any case; all of them unknown for a name that is not registered."""
    folded = {known.casefold(): terms for known, terms in registry().items()}
    return folded.get(name.strip().casefold(), Licence())


def together(licences: Iterable[Licence]) -> dict[str, bool | None]:
    """What holds for works under all of the licences at once, by name of the permission or duty; None is unknown.

    A permission holds if all licences give it and fails if one denies it. A duty holds if one licence has it.
    """
    licences = list(licences)
    result: dict[str, bool | None] = {}
    for name in (*PERMISSIONS, *DUTIES):
        values = {getattr(licence, name) for licence in licences}
        decisive = name in DUTIES
        result[name] = decisive if decisive in values else None if None in values or not values else not decisive
    return result
