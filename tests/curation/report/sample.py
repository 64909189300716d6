"""A small made-up run: 60 clips, every verdict, every kind of column and hostile names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from curation.report import Account, ReportInput, Step
from curation.select import VERDICTS
from curation.thresholds import Threshold
from engine.items import stable_hash
from engine.stage import INTERVALS, SERIES, field

HOSTILE = 'media/</script><script>window.pwned=1</script>/it\'s "<img src=x onerror=window.pwned=1>"\n& more.mp4'


def rule(reason: str, score: str, why: str = "chosen for the sample", **bounds: Any) -> Threshold:
    return Threshold(reason=reason, score=score, why=why, **bounds)


RULES = (
    rule("static", "static.motion", min=0.05, why="OpenVid-1M keeps the same share of talking heads"),
    rule("text", "text_overlay.area", max=0.02, absent="pass", why="Subtitles cover 3–8 % of a frame"),
    rule("no speech", "sentences.speech_ratio", min=0.4),
    rule("noisy", "snr.snr_db", min=6, max=60),
    rule("no face", "faces.count", min=1, max=2),
    rule("unsynced", "lip_sync.confidence", min=4.5, absent="pass"),
    rule("ugly", "aesthetics.score", min=4.0, why="LAION predictor, not run in this profile"),
)

FIELDS = {
    "static": [
        field("motion", pa.float32(), "Median optical flow inside the face box, pixels a frame, 0…∞"),
        field("frozen_ratio", pa.float32(), "Share of frames equal to the one before, 0…1"),
    ],
    "text_overlay": [
        field("area", pa.float32(), "Share of the picture under burned-in text, 0…1"),
        field("strings", pa.list_(pa.string()), "Strings that were read"),
    ],
    "sentences": [
        field("speech_ratio", pa.float32(), "Share of the clip in which somebody speaks, 0…1"),
        field("intervals", INTERVALS, "Speech intervals, seconds from the clip's start"),
    ],
    "snr": [
        field("snr_db", pa.float32(), "Speech level against the noise floor, dB"),
        field("over_time", SERIES, "SNR in windows of 1 s, dB"),
    ],
    "faces": [field("count", pa.int32(), "Faces in the median frame, 0…n")],
    "lip_sync": [
        field("confidence", pa.float32(), "Highest correlation less the median over ±15 frames"),
        field("offset", pa.int32(), "Audio offset at the maximum, frames at 25 fps"),
    ],
}


def scores(clips: int = 60, seed: int = 0, uris: Sequence[str] = (HOSTILE,)) -> pa.Table:
    """Scores with verdicts that follow from ``RULES``, the last two clips quarantined and undecided."""
    random = np.random.default_rng(seed)
    columns: dict[str, Any] = {
        "key": [stable_hash(seed, i) for i in range(clips)],
        "source_uri": [uris[i % len(uris)] for i in range(clips)],
        "start_s": np.zeros(clips),
        "end_s": np.full(clips, 4.0),
        "width": np.full(clips, 1280),
        "height": np.full(clips, 720),
        "fps": np.full(clips, 25.0),
        "licence": ["CC-BY-4.0"] * clips,
        "provenance": ['{"channel": "sample"}'] * clips,
    }
    values = {
        "static.motion": random.lognormal(-1.6, 1.0, clips),
        "static.frozen_ratio": random.beta(0.5, 8, clips),
        "text_overlay.area": random.beta(0.4, 30, clips),
        "text_overlay.strings": [["Breaking <news>"] if i % 7 == 0 else [] for i in range(clips)],
        "sentences.speech_ratio": random.beta(5, 2, clips),
        "sentences.intervals": [[{"start_s": 0.4, "end_s": 1.7}, {"start_s": 2.1, "end_s": 3.6}]] * clips,
        "snr.snr_db": random.normal(16, 7, clips),
        "snr.over_time": [list(map(float, random.normal(16, 4, 12))) for _ in range(clips)],
        "faces.count": random.choice(4, clips, p=[0.08, 0.8, 0.08, 0.04]),
        "lip_sync.confidence": random.normal(9, 3.5, clips),
        "lip_sync.offset": random.integers(-3, 4, clips),
    }
    fields = [pa.field(name, pa.array(column).type) for name, column in columns.items()]
    states = {stage: ["value"] * clips for stage in FIELDS}
    for i in range(5, clips, 11):
        states["lip_sync"][i] = "not_applicable"
    for i in range(3, clips, 13):
        states["lip_sync"][i] = "skipped"
    states["snr"][-1] = "failed"
    for stage in FIELDS:
        states[stage][-2] = "failed" if stage == "static" else None
    for stage, value_fields in FIELDS.items():
        details = {
            "not_applicable": "no face speaks",
            "failed": "decoder <died> on packet 17",
            "skipped": "gate: no face",
        }
        answers = {
            f"{stage}.status": states[stage],
            f"{stage}.detail": [details.get(state) for state in states[stage]],
            f"{stage}.seconds": [0.02] * clips,
        }
        for name, column in answers.items():
            columns[name] = column
            fields.append(pa.field(name, pa.float64() if name.endswith("seconds") else pa.string()))
        for value in value_fields:
            name = f"{stage}.{value.name}"
            known = [state == "value" for state in states[stage]]
            cells = [cell if has else None for cell, has in zip(values[name], known, strict=True)]
            columns[name] = pa.array(cells, value.type)
            fields.append(value.with_name(name))
    table = pa.table(columns, schema=pa.schema(fields))
    return _with_verdicts(table, clips)


def _with_verdicts(table: pa.Table, clips: int) -> pa.Table:
    verdicts, reasons, pending = [], [], []
    for i, row in enumerate(table.to_pylist()):
        broken, waiting = [], []
        for rule in RULES:
            stage = rule.score.split(".")[0]
            if stage not in FIELDS:
                continue
            status, value = row[f"{stage}.status"], row[rule.score]
            if status in ("failed", None):
                waiting.append(stage)
            elif status == "skipped":
                broken.append("gated")
            elif value is None:
                broken += [rule.reason] if rule.absent == "drop" else []
            elif (rule.min is not None and value < rule.min) or (rule.max is not None and value > rule.max):
                broken.append(rule.reason)
        reasons.append([reason for reason in broken if reason != "gated"] or (["gated"] if broken else []))
        pending.append(waiting)
        settled = "dropped" if broken else "undecided" if waiting else "kept"
        verdicts.append("quarantined" if i == clips - 2 else settled)
    lists = pa.list_(pa.string())
    return (
        table.append_column("verdict", pa.array(verdicts))
        .append_column("reasons", pa.array(reasons, lists))
        .append_column("pending", pa.array(pending, lists))
    )


def report(table: pa.Table | None = None) -> ReportInput:
    """Everything that a report needs around ``table``, with one fallback and one rule that was not applied."""
    table = scores() if table is None else table
    counts = {name: table["verdict"].to_pylist().count(name) for name in VERDICTS}
    clips = table.num_rows
    return ReportInput(
        scores=table,
        rules=RULES,
        funnel=[
            Step("listed", 48, "sources"),
            Step("readable", 45, "sources"),
            Step("unique", 44, "sources"),
            Step("clips", clips),
            Step("after video", clips - 12),
            Step("after audio", clips - 20),
            Step("kept", counts["kept"]),
        ],
        accounts=[Account("sources", 48, 30, 14, 1, 3), Account("clips", clips, **counts)],
        quarantine=[
            {
                "key": "0" * 32,
                "source_uri": HOSTILE,
                "stage": "probe",
                "error_kind": "media",
                "error": "moov atom not found: <truncated>",
                "attempts": 1,
            },
            {
                "key": "1" * 32,
                "source_uri": "media/hangs.mp4",
                "stage": "static",
                "error_kind": "timeout",
                "error": "no answer within 60 s; the decoder was stopped",
                "attempts": 3,
            },
        ],
        stages=[
            {
                "name": name,
                "tier": tier,
                "fingerprint": f"1-{stable_hash(name)[:12]}",
                "config": {"side": 640, "windows": [1, 2]},
                "weights": [{"name": f"{name}_net", "sha256": stable_hash(name) * 2, "licence": "Apache-2.0"}],
                "seconds": 12.5 * weight,
                "cpu_seconds": 11.0 * weight,
                "items": clips,
                "items_per_second": clips / (12.5 * weight),
                "peak_memory": int(3e8 * weight),
                "fallback_for": "SyncNet" if name == "lip_sync" else None,
                "not_run": False,
            }
            for name, tier, weight in (
                ("static", "video", 0.3),
                ("text_overlay", "video", 1.1),
                ("sentences", "audio", 0.4),
                ("snr", "audio", 0.7),
                ("faces", "audio-video", 1.4),
                ("lip_sync", "audio-video", 0.9),
            )
        ]
        + [{"name": "aesthetics", "tier": "video", "not_run": True}],
        run={
            "config": "profile: cpu\nstages:\n  static: {side: 640}\n  # </script><script>window.pwned=1</script>\n",
            "code_revision": "7898cd1f0e5c1d2a3b4c5d6e7f8091a2b3c4d5e6",
            "started": "2026-11-22 21:31:07 UTC",
            "finished": "2026-11-22 21:34:52 UTC",
            "executor": "ray",
            "machine": {"cores": 2, "memory": "24 GiB", "python": "3.11.2"},
        },
        speech="sentences.intervals",
    )
