"""Hold the verdicts of a curation run against files whose truth is known.

    labels = read_labels(Path("labels.tsv"))
    results = check_labels(curation, labels)
    print(accuracy_table(results))

The labels are a TSV with the columns ``file`` (name without folder), ``label`` and ``params`` (``key=value`` pairs
with blanks between, may be empty). The vocabulary of ``label``:

- ``keep``: every clip of the file must be kept;
- a reason for which no clip of it may be kept: one of :data:`REASONS`, or a reason of the run's own thresholds;
- ``cut``: two shots joined at the param ``cut_s`` (seconds), and no clip may cross that;
- ``broken``: the file must be quarantined.

The param ``shift_s`` says by how many seconds the audio was made late; then the measured offset is compared too.
Other params are carried along.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from curation.config import Curation
from curation.job import read_file, read_rows
from curation.select import VERDICT_SCHEMA, load_scores
from engine.jobs import QUARANTINE_SCHEMA
from media.clip import GRID_FPS
from unitalking_data.storage import Store

REASONS = ("static", "text", "quality", "muted", "no_speech", "noisy", "no_speaker", "unsynced")
OTHER_LABELS = ("keep", "cut", "broken")
OFFSET_TOLERANCE = 2  # frames
CUT_MARGIN_S = 0.02


@dataclass(frozen=True)
class Truth:
    """One labelled file."""

    file: str
    label: str
    params: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LabelResult:
    """What became of one labelled file.

    Attributes:
        outcome: ``kept`` when any clip of it was kept, else ``dropped``, ``undecided``, ``quarantined`` or
            ``no clip`` (nothing long enough, or a duplicate).
        reasons: all reasons of all its clips.
        right: whether that is what the label asks for.
        named: whether the label is among the reasons, for labels that are reasons.
        offset: measured audio offset in frames of 1/25 s (+ is audio late), ``None`` without one or with several clips.
        sync: in-sync evidence of the same clip.
    """

    truth: Truth
    outcome: str
    reasons: tuple[str, ...]
    right: bool
    named: bool
    offset: float | None = None
    sync: float | None = None


def read_labels(path: Path) -> list[Truth]:
    """The labels of a TSV file.

    Raises:
        OSError: the file cannot be read.
        ValueError: a column is missing, or a row's params are not what its label needs.
    """
    with path.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream, delimiter="\t")
        if missing := {"file", "label", "params"} - set(reader.fieldnames or ()):
            raise ValueError(f"{path}: no column {', '.join(sorted(missing))}")
        return [Truth(row["file"], row["label"], _params(path, row)) for row in reader]


def _params(path: Path, row: Mapping[str, str | None]) -> dict[str, str]:
    pairs = (row["params"] or "").split()
    if wrong := [pair for pair in pairs if "=" not in pair]:
        raise ValueError(f"{path}: params of {row['file']}: {wrong[0]!r} is not of the form key=value")
    params = dict(pair.split("=", 1) for pair in pairs)
    if row["label"] == "cut" and "cut_s" not in params:
        raise ValueError(f"{path}: {row['file']} is labelled cut: its params need cut_s=SECONDS")
    for name in {"cut_s", "shift_s"} & params.keys():
        try:
            float(params[name])
        except ValueError:
            raise ValueError(f"{path}: params of {row['file']}: {name} is not a number of seconds") from None
    return params


def check_labels(curation: Curation, labels: Sequence[Truth]) -> list[LabelResult]:
    """What the last selection of a run made of the labelled files, one result a label, in their order.

    Raises:
        ValueError: a label outside the vocabulary, a labelled file that the run has not seen, or a name that two of
            its files share.
    """
    _check_vocabulary(labels, {*REASONS, *OTHER_LABELS, *curation.thresholds.reasons})
    store = curation.store
    sources = read_rows(store, "sources", ["key", "uri"]).to_pylist()
    keys = {Path(row["uri"]).name: row["key"] for row in sources}
    if unlisted := [truth.file for truth in labels if truth.file not in keys]:
        raise ValueError(f"labelled files that the run has not seen: {', '.join(unlisted[:5])}")
    names = Counter(Path(row["uri"]).name for row in sources)
    if shared := [truth.file for truth in labels if names[truth.file] > 1]:
        raise ValueError(f"the run has several files of one labelled name: {', '.join(shared[:5])}")
    broken = {row["key"] for row in read_file(store, "quarantine/source.parquet", QUARANTINE_SCHEMA).to_pylist()}
    clips = _clips_by_file(curation, store)
    return [compare(truth, clips.get(truth.file, []), keys[truth.file] in broken) for truth in labels]


def _check_vocabulary(labels: Sequence[Truth], known: set[str]) -> None:
    if strange := sorted({truth.label for truth in labels} - known):
        raise ValueError(f"unknown labels {', '.join(map(repr, strange))}; there are {', '.join(sorted(known))}")


def _clips_by_file(curation: Curation, store: Store) -> dict[str, list[dict[str, Any]]]:
    verdicts = {row["key"]: row for row in read_file(store, "verdicts.parquet", VERDICT_SCHEMA).to_pylist()}
    scores = load_scores(curation.ledger, read_rows(store, "clips"), curation.specs, scalars_only=True)
    clips: dict[str, list[dict[str, Any]]] = {}
    for row in scores.to_pylist():
        verdict = verdicts.get(row["key"], {"verdict": "undecided", "reasons": []})  # cut after the last selection
        clips.setdefault(Path(row["source_uri"]).name, []).append({**row, **verdict})
    return clips


def compare(truth: Truth, clips: Sequence[Mapping[str, Any]], broken: bool) -> LabelResult:
    """Hold one file's clips against its label.

    Args:
        clips: rows with ``start_s``, ``end_s``, ``verdict``, ``reasons`` and, where it was measured,
            ``lip_sync.offset_frames`` and ``lip_sync.sync_evidence``.
        broken: whether the file itself is in quarantine.
    """
    verdicts = [clip["verdict"] for clip in clips]
    reasons = tuple(dict.fromkeys(reason for clip in clips for reason in clip["reasons"]))
    order = ("kept", "undecided", "quarantined", "dropped")
    outcome = next((v for v in order if v in verdicts), "quarantined" if broken else "no clip")
    match truth.label:
        case "keep":
            right = bool(clips) and all(verdict == "kept" for verdict in verdicts)
        case "broken":
            right = outcome == "quarantined"
        case "cut":
            at = float(truth.params["cut_s"])
            crossing = [c for c in clips if c["start_s"] < at - CUT_MARGIN_S and c["end_s"] > at + CUT_MARGIN_S]
            right = bool(clips) and not crossing
        case _:
            right = outcome != "kept"
    only = clips[0] if len(clips) == 1 else {}
    return LabelResult(
        truth,
        outcome,
        reasons,
        right,
        truth.label in reasons,
        only.get("lip_sync.offset_frames"),
        only.get("lip_sync.sync_evidence"),
    )


def accuracy_table(results: Sequence[LabelResult]) -> str:
    """The confusion table as text: a line a label, the files that came out wrong, the sync figures, the total."""
    lines = _aligned(_counts(results))
    for one in results:
        if not one.right:
            came = f"came out {one.outcome} {', '.join(one.reasons)}"
            lines.append(f"wrong: {one.truth.file!r} is {one.truth.label}, {came}")
    lines += _sync_lines(results)
    right = sum(one.right for one in results)
    share = f" ({100 * right / len(results):.0f} %)" if results else ""
    return "\n".join([*lines, f"right about {right} of {len(results)} files{share}"])


def _counts(results: Sequence[LabelResult]) -> list[list[str]]:
    """Rows of cells, the heading first."""
    reasons = sorted({reason for one in results for reason in one.reasons})
    shown = ("kept", "undecided", "quarantined")
    rows = [["label", "files", "right", "named", *shown, *reasons]]
    for label in dict.fromkeys(one.truth.label for one in results):
        group = [one for one in results if one.truth.label == label]
        outcomes = Counter(one.outcome for one in group)
        by_reason = Counter(reason for one in group for reason in one.reasons)
        named = "–" if label in OTHER_LABELS else str(sum(one.named for one in group))
        counts = [len(group), sum(one.right for one in group)]
        rows.append([label, *map(str, counts), named])
        rows[-1] += [*(str(outcomes[name]) for name in shown), *(str(by_reason[reason]) for reason in reasons)]
    return rows


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))])
        for row in rows
    ]


def offsets(results: Sequence[LabelResult]) -> list[tuple[str, float, float]]:
    """File, known and measured offset in frames (+ is audio late) of every file with a planted shift."""
    return [
        (one.truth.file, float(one.truth.params["shift_s"]) * GRID_FPS, one.offset)
        for one in results
        if "shift_s" in one.truth.params and one.offset is not None
    ]


def sync_auc(results: Sequence[LabelResult]) -> float | None:
    """Area under the ROC curve of the in-sync evidence, ``keep`` against ``unsynced``; ``None`` without both."""
    good = [one.sync for one in results if one.truth.label == "keep" and one.sync is not None]
    bad = [one.sync for one in results if one.truth.label == "unsynced" and one.sync is not None]
    if not good or not bad:
        return None
    return float(np.mean([(g > b) + 0.5 * (g == b) for g in good for b in bad]))


def _sync_lines(results: Sequence[LabelResult]) -> list[str]:
    lines = []
    if known := offsets(results):
        close = [file for file, want, got in known if abs(want - got) <= OFFSET_TOLERANCE]
        shifted = sum("shift_s" in one.truth.params for one in results)
        lines.append(f"offset of a known shift within ±{OFFSET_TOLERANCE} frames: {len(close)} of {shifted}")
    if (auc := sync_auc(results)) is not None:
        lines.append(f"AUC of in-sync evidence, keep against unsynced: {auc:.3f}")
    return lines
