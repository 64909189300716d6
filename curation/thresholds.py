"""What a kept clip must measure: rules with a reason each, read from a ``thresholds`` YAML file."""

from __future__ import annotations

from engine.rules import Rule
from kit.config import Strict


class Threshold(Rule):
    """A rule of selection.

    Attributes:
        reason: why a clip that breaks it is dropped, in the vocabulary of labels (``static``, ``text``, …).
        why: where the bound comes from: a paper, a study, a standard.
    """

    reason: str
    why: str


class Thresholds(Strict):
    """All rules in tier order: the first broken one is a clip's first reason."""

    rules: tuple[Threshold, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(rule.reason for rule in self.rules))
