"""What a report is made of. The producers of a run fill it in; the report computes only views of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import pyarrow as pa

from curation.thresholds import Threshold


@dataclass(frozen=True, slots=True)
class Step:
    """One bar of the funnel; bars of the same ``unit`` ("sources", "clips") share a scale."""

    name: str
    count: int
    unit: str = "clips"


@dataclass(frozen=True, slots=True)
class Account:
    """``rows_in = kept + dropped + undecided + quarantined`` for one kind of row ("sources", "clips")."""

    what: str
    rows_in: int
    kept: int
    dropped: int
    undecided: int
    quarantined: int

    @property
    def difference(self) -> int:
        """Rows in that are in no class (negative: rows that came from nowhere); 0 when it balances."""
        return self.rows_in - self.kept - self.dropped - self.undecided - self.quarantined

    def __str__(self) -> str:
        sign = "=" if self.difference == 0 else "≠"
        return (
            f"{self.rows_in:,} {self.what} in {sign} {self.kept:,} kept + {self.dropped:,} dropped + "
            f"{self.undecided:,} undecided + {self.quarantined:,} quarantined"
        )


class WeightUse(TypedDict):
    """One model file of a stage."""

    name: str
    sha256: str
    licence: str


class StageUse(TypedDict, total=False):
    """What one stage was and cost. Times in seconds summed over its items, memory in bytes."""

    name: str
    tier: str
    fingerprint: str
    config: Mapping[str, Any]
    weights: Sequence[WeightUse]
    seconds: float | None
    cpu_seconds: float | None
    items: int
    items_per_second: float | None
    peak_memory: int | None
    fallback_for: str | None
    """What this stage stands in for, where its model was missing and the configuration allowed a substitute."""
    not_run: bool


class QuarantineRow(TypedDict):
    """One row that failed for good. ``stage`` may be the ingest's probe, ``key`` then names a source."""

    key: str
    source_uri: str
    stage: str
    error_kind: str
    error: str
    attempts: int


@dataclass(frozen=True, slots=True)
class ReportInput:
    """All that a report shows.

    Attributes:
        scores: one row a clip: ``key, source_uri, start_s, end_s, width, height, fps, licence, provenance``;
            per stage ``<stage>.status`` (one of :data:`engine.ledger.STATUSES`, null = not run yet),
            ``<stage>.detail``, ``<stage>.seconds`` and its values as ``<stage>.<value>`` with a ``description`` in
            the field's metadata; ``verdict`` (one of :data:`curation.select.VERDICTS`, null counts as undecided),
            ``reasons`` (list<string>, all, in tier order), ``pending`` (list<string>, stages that failed or have
            not run).
        rules: the thresholds that made the verdicts.
        funnel: from the listing to what is kept, in order.
        accounts: one for the sources, one for the clips.
        quarantine: failures that are final.
        stages: in the order in which they ran; those that did not run have ``not_run`` set.
        run: ``config`` (resolved YAML as text), ``code_revision``, ``started``, ``finished``, ``executor``,
            ``machine`` and whatever else should be shown; values are text, numbers or flat mappings.
        speech: score column with the intervals of speech (seconds from the clip's start) that are marked
            on the waveforms, if there is one.
        title: heading of the page.
    """

    scores: pa.Table
    rules: Sequence[Threshold]
    funnel: Sequence[Step]
    accounts: Sequence[Account]
    quarantine: Sequence[QuarantineRow]
    stages: Sequence[StageUse]
    run: Mapping[str, Any]
    speech: str | None = None
    title: str = "Curation report"
