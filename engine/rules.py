"""Bounds on scores: one form for the cascade's gates and for selection's thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import field_validator, model_validator

from kit.config import Strict


class Rule(Strict):
    """A clip passes when ``min <= score <= max``.

    Attributes:
        score: ``stage.column``; the column holds numbers or booleans (false 0, true 1).
        min: inclusive lower bound; at least one of the bounds is given.
        max: inclusive upper bound.
        absent: what holds where the stage answered "not applicable" or left the column empty. A score that
            *failed* is neither: it passes a gate and leaves a selection undecided.
    """

    score: str
    min: float | None = None
    max: float | None = None
    absent: Literal["pass", "drop"] = "drop"

    @field_validator("score")
    @classmethod
    def _dotted(cls, score: str) -> str:
        stage, dot, column = score.partition(".")
        if not (stage and dot and column):
            raise ValueError(f"{score!r} is not of the form stage.column")
        return score

    @model_validator(mode="after")
    def _bounded(self) -> Rule:
        if self.min is None and self.max is None:
            raise ValueError(f"the rule on {self.score} needs min or max")
        return self

    @property
    def stage(self) -> str:
        return self.score.partition(".")[0]

    @property
    def column(self) -> str:
        return self.score.partition(".")[2]

    def passes(self, value: float | bool | None) -> bool:
        """Whether a measured value (``None``: absent) is within the bounds."""
        if value is None:
            return self.absent == "pass"
        return (self.min is None or value >= self.min) and (self.max is None or value <= self.max)

    def sql(self, value: str) -> str:
        """DuckDB expression that is true where ``value``, an expression, violates the rule."""
        number = f"CAST({value} AS DOUBLE)"
        broken = [f"{number} < {self.min!r}"] if self.min is not None else []
        broken += [f"{number} > {self.max!r}"] if self.max is not None else []
        absent = "TRUE" if self.absent == "drop" else "FALSE"
        return f"COALESCE({' OR '.join(broken)}, {absent})"


class Gate(Strict):
    """Stages that are skipped for a clip whose earlier scores break a rule: looser than selection, to save work.

    Attributes:
        before: the stages that are skipped.
        rules: what a clip has to pass.
    """

    before: tuple[str, ...]
    rules: tuple[Rule, ...]


def closed_by(rules: Sequence[Rule], known: Mapping[str, Mapping[str, Any]]) -> Rule | None:
    """The first rule that shuts a gate, given ``known[stage] = {"status": …, "values": {…}}``; ``None`` is open.

    A stage that is unknown, failed or was itself skipped shuts nothing.
    """
    for rule in rules:
        answer = known.get(rule.stage)
        if answer is None or answer["status"] not in ("value", "not_applicable"):
            continue
        if not rule.passes(answer.get("values", {}).get(rule.column)):
            return rule
    return None
