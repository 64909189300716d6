"""Scoring one batch inside the guarded process: open each item once, run the stages in order, report each step."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.rules import closed_by
from engine.specs import GroupSpec, OpenItem, Row, WorkItem
from engine.stage import FAILURE_KINDS, Failure, NotApplicable, Outcome, Stage, Value
from media.clip import MediaError

OPENING = "(opening)"


@dataclass
class _OpenResult:
    """An opened item and what opening cost, until the first stage takes that cost on its row."""

    content: Any = None
    failure: Failure | None = None
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    bytes_read: int = 0


class Scorer:
    """Stages of a group, set up, with the loop over a batch."""

    def __init__(self, group: GroupSpec, stages: Sequence[Stage[Any]], opener: OpenItem | None) -> None:
        self._group, self._stages, self._opener = group, stages, opener
        self._rules = {stage.name: group.gate_rules(stage.name) for stage in stages}

    def run(
        self, batch: Sequence[WorkItem], begin: Callable[[str, int], None], done: Callable[[str, list[Row]], None]
    ) -> None:
        """Score ``batch``; ``begin(step, items)`` announces a step, ``done(stage, rows)`` its answers."""
        known: dict[str, dict[str, Any]] = {work.item.key: dict(work.known) for work in batch}
        opened: dict[str, _OpenResult] = {}
        for stage in self._stages:
            rows: list[Row] = []
            ready: list[WorkItem] = []
            for work in batch:
                if stage.name not in work.todo:
                    continue
                if (rule := closed_by(self._rules[stage.name], known[work.item.key])) is not None:
                    rows.append(Row(work.item.key, "skipped", 0, reason=f"gate on {rule.score}"))
                    continue
                if work.item.key not in opened:
                    begin(OPENING, 1)
                    opened[work.item.key] = self._open(work)
                if opened[work.item.key].failure is not None:
                    rows.append(_row(stage.name, work, opened[work.item.key].failure, opened[work.item.key]))
                    continue
                ready.append(work)
            if ready:
                begin(stage.name, len(ready))
                rows += self._score(stage, ready, opened)
            for row in rows:
                known[row.key][stage.name] = {"status": row.status, "values": row.values}
            if rows:
                done(stage.name, rows)

    def _open(self, work: WorkItem) -> _OpenResult:
        if self._opener is None:
            return _OpenResult(work.item)
        needs = frozenset().union(*(stage.needs for stage in self._stages if stage.name in work.todo))
        wall, cpu = time.perf_counter(), time.process_time()
        content, failure = None, None
        try:
            content = self._opener(work.item, needs)
        except MediaError as error:
            failure = Failure("media", str(error))
        except OSError as error:
            failure = Failure("io", f"{type(error).__name__}: {error}")
        except Exception as error:  # whatever a decoder throws at a bad file is that file's failure
            failure = Failure("error", f"opening: {type(error).__name__}: {error}")
        seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
        return _OpenResult(
            content, failure, seconds, cpu_seconds, getattr(getattr(content, "media", None), "bytes_read", 0)
        )

    def _score(self, stage: Stage[Any], ready: Sequence[WorkItem], opened: Mapping[str, _OpenResult]) -> list[Row]:
        wall, cpu = time.perf_counter(), time.process_time()
        contents = [opened[work.item.key].content for work in ready]
        try:
            outcomes = _checked(stage, contents)
        except Exception:  # one bad item must not cost the batch: find it
            outcomes = [_alone(stage, content) for content in contents]
        share = 1 / len(ready)
        seconds, cpu_seconds = (time.perf_counter() - wall) * share, (time.process_time() - cpu) * share
        return [
            _row(stage.name, work, outcome, opened[work.item.key], seconds, cpu_seconds)
            for work, outcome in zip(ready, outcomes, strict=True)
        ]


def _checked(stage: Stage[Any], contents: Sequence[Any]) -> list[Outcome]:
    outcomes = stage.score(contents)
    if len(outcomes) != len(contents):
        raise ValueError(f"{stage.name} answered {len(outcomes)} outcomes for {len(contents)} items")
    for outcome in outcomes:
        if isinstance(outcome, Value) and (unknown := set(outcome.values) - set(stage.values.names)):
            raise ValueError(f"{stage.name} wrote columns that its schema lacks: {sorted(unknown)}")
        if isinstance(outcome, Failure) and outcome.kind not in FAILURE_KINDS:
            raise ValueError(f"{stage.name} answered an unknown kind of failure {outcome.kind!r}")
    return outcomes


def _alone(stage: Stage[Any], content: Any) -> Outcome:
    try:
        return _checked(stage, [content])[0]
    except MediaError as error:
        return Failure("media", str(error))
    except Exception as error:
        return Failure("error", f"{type(error).__name__}: {error}")


def _row(
    stage: str,
    work: WorkItem,
    outcome: Outcome | None,
    opened: _OpenResult,
    seconds: float = 0.0,
    cpu_seconds: float = 0.0,
) -> Row:
    cost = {
        "attempts": work.attempts.get(stage, 0) + 1,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds + opened.cpu_seconds,
        "open_seconds": opened.seconds,
        "bytes_read": opened.bytes_read,
        "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    opened.seconds = opened.cpu_seconds = 0.0
    opened.bytes_read = 0
    match outcome:
        case Value(values):
            return Row(work.item.key, "value", values=values, **cost)
        case NotApplicable(reason):
            return Row(work.item.key, "not_applicable", reason=reason, **cost)
        case Failure(kind, message):
            return Row(work.item.key, "failed", error_kind=kind, error=message, **cost)
    raise TypeError(f"{stage} answered {outcome!r}, which is no outcome")
