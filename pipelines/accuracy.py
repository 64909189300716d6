"""How often a curation was right about files whose truth is known.

The labels are a TSV with ``file``, ``label`` and ``params`` (``key=value`` pairs): ``keep``, or the reason for which
the file must not be kept (``static``, ``text``, ``quality``, ``muted``, ``no_speech``, ``noisy``, ``no_speaker``,
``unsynced``), ``cut`` (two shots joined at ``cut_s``: no clip may cross it) or ``broken`` (must be quarantined).
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from corpus.storage import Store
from curation.config import Curation
from curation.job import read_file, read_rows
from curation.select import VERDICT_SCHEMA, load_scores
from engine.jobs import QUARANTINE_SCHEMA
from engine.ledger import Ledger

GRID_FPS = 25.0
OFFSET_TOLERANCE = 2  # frames
CUT_MARGIN_S = 0.02


@dataclass(frozen=True)
class Truth:
    """One labelled file."""

    file: str
    label: str
    params: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Judged:
    """What became of one labelled file.

    Attributes:
        outcome: ``kept`` when any clip of it was kept, else ``dropped``, ``undecided``, ``quarantined`` or
            ``no clip`` (nothing long enough, or a duplicate).
        reasons: all reasons of all its clips.
        right: whether that is what the label asks for.
        named: whether the label is among the reasons, for labels that are reasons.
    """

    truth: Truth
    outcome: str
    reasons: tuple[str, ...]
    right: bool
    named: bool
    offset: float | None = None
    sync: float | None = None


def read_labels(path: Path) -> list[Truth]:
    """Raises ValueError where a column is missing."""
    with path.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream, delimiter="\t")
        if missing := {"file", "label", "params"} - set(reader.fieldnames or ()):
            raise ValueError(f"{path}: no column {', '.join(sorted(missing))}")
        return [
            Truth(row["file"], row["label"], dict(pair.split("=", 1) for pair in (row["params"] or "").split()))
            for row in reader
        ]


def judge(curation: Curation, labels: Sequence[Truth]) -> list[Judged]:
    """Hold the verdicts of the last selection against the labels; a labelled file that was not listed is an error."""
    store = Store(curation.config.root)
    sources = {Path(row["uri"]).name: row["key"] for row in read_rows(store, "sources").to_pylist()}
    if unlisted := [truth.file for truth in labels if truth.file not in sources]:
        raise ValueError(f"labelled files that the run has not seen: {', '.join(unlisted[:5])}")
    broken = {row["key"] for row in read_file(store, "quarantine/source.parquet", QUARANTINE_SCHEMA).to_pylist()}
    verdicts = {row["key"]: row for row in read_file(store, "verdicts.parquet", VERDICT_SCHEMA).to_pylist()}
    clips: dict[str, list[dict]] = {}
    for row in _scored(curation, store).to_pylist():
        clips.setdefault(Path(row["source_uri"]).name, []).append({**row, **verdicts[row["key"]]})
    return [_judge(truth, clips.get(truth.file, []), sources[truth.file] in broken) for truth in labels]


def _scored(curation: Curation, store: Store) -> pa.Table:
    return load_scores(Ledger(store), read_rows(store, "clips"), curation.specs, scalars_only=True)


def _judge(truth: Truth, clips: Sequence[Mapping], broken: bool) -> Judged:
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
    first = clips[0] if len(clips) == 1 else {}
    return Judged(
        truth,
        outcome,
        reasons,
        right,
        truth.label in reasons,
        first.get("lip_sync.offset_frames"),
        first.get("lip_sync.sync_evidence"),
    )


def table(judged: Sequence[Judged]) -> str:
    """The confusion table as text: a line a label, then the files that came out wrong."""
    reasons = sorted({reason for one in judged for reason in one.reasons})
    header = ["label", "files", "right", "named", "kept", "undecided", "quarantined", *reasons]
    lines = [header]
    for label in dict.fromkeys(one.truth.label for one in judged):
        group = [one for one in judged if one.truth.label == label]
        outcomes = Counter(one.outcome for one in group)
        by_reason = Counter(reason for one in group for reason in one.reasons)
        named = str(sum(one.named for one in group)) if label not in ("keep", "cut", "broken") else "–"
        counts = [len(group), sum(one.right for one in group), named]
        lines.append(
            [label, *map(str, counts), *(str(outcomes[v]) for v in ("kept", "undecided", "quarantined"))]
            + [str(by_reason[reason]) for reason in reasons]
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    text = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths))
        )
        for line in lines
    ]
    for one in judged:
        if not one.right:
            text.append(
                f"wrong: {one.truth.file!r} is {one.truth.label}, came out {one.outcome} {', '.join(one.reasons)}"
            )
    text += _sync_lines(judged)
    right = sum(one.right for one in judged)
    text.append(f"right about {right} of {len(judged)} files ({100 * right / len(judged):.0f} %)")
    return "\n".join(text)


def offsets(judged: Sequence[Judged]) -> list[tuple[str, float, float]]:
    """Known and measured offset in frames (+ is audio late) of every file with a planted shift."""
    return [
        (one.truth.file, float(one.truth.params["shift_s"]) * GRID_FPS, one.offset)
        for one in judged
        if "shift_s" in one.truth.params and one.offset is not None
    ]


def sync_auc(judged: Sequence[Judged]) -> float | None:
    """Area under the curve of the in-sync evidence: keeps against shifted and swapped files."""
    good = [one.sync for one in judged if one.truth.label == "keep" and one.sync is not None]
    bad = [one.sync for one in judged if one.truth.label == "unsynced" and one.sync is not None]
    if not good or not bad:
        return None
    return float(np.mean([(g > b) + 0.5 * (g == b) for g in good for b in bad]))


def _sync_lines(judged: Sequence[Judged]) -> list[str]:
    lines = []
    if known := offsets(judged):
        close = [file for file, want, got in known if abs(want - got) <= OFFSET_TOLERANCE]
        shifted = sum("shift_s" in one.truth.params for one in judged)
        lines.append(f"offset of a known shift within ±{OFFSET_TOLERANCE} frames: {len(close)} of {shifted}")
    if (auc := sync_auc(judged)) is not None:
        lines.append(f"AUC of in-sync evidence, keep against unsynced: {auc:.3f}")
    return lines
