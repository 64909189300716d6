"""Planted labels against a small table of verdicts."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
import yaml

from curation.accuracy import (
    LabelResult,
    Truth,
    accuracy_table,
    check_labels,
    compare,
    offsets,
    read_labels,
    sync_auc,
)
from curation.config import Curation, resolve_config
from curation.select import VERDICT_SCHEMA
from engine.items import Clip, Source, to_table
from engine.jobs import QUARANTINE_SCHEMA
from unitalking_data.storage import Store

# file: verdict and reasons of each of its clips, which are 4 s long and follow one another.
CLIPS = {
    "good.mp4": [("kept", [])],
    "lost.mp4": [("dropped", ["muted"])],
    "still.mp4": [("dropped", ["muted", "static"])],
    "silent.mp4": [("dropped", ["static"]), ("kept", [])],
    "two.mp4": [("kept", []), ("dropped", ["static"])],
    "torn.mp4": [],
    "open.mp4": [("undecided", [])],
}
LABELS = {
    "good.mp4": "keep",
    "lost.mp4": "keep",
    "still.mp4": "static",
    "silent.mp4": "muted",
    "two.mp4": "cut",
    "torn.mp4": "broken",
    "open.mp4": "no_speech",
}


@pytest.fixture
def curation(tmp_path: Path) -> Curation:
    """A run of ``CLIPS`` in two folders, selected but not scored."""
    rules = [{"reason": "muted", "score": "loudness.has_audio", "min": 1, "why": "test"}]
    (tmp_path / "thresholds.yaml").write_text(yaml.safe_dump({"rules": rules}))
    config = {
        "root": str(tmp_path / "run"),
        "listing": {"inputs": [str(tmp_path)]},
        "source": {"name": "source", "stages": {"source": {"backend": "content"}}},
        "groups": [{"name": "scorers", "stages": {"static": {}, "loudness": {}}}],
        "thresholds": str(tmp_path / "thresholds.yaml"),
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    store = Store(tmp_path / "run")
    uris = {name: f"{tmp_path}/{'ab'[number % 2]}/{name}" for number, name in enumerate(CLIPS)}
    sources = [*uris.values(), f"{tmp_path}/a/more.mp4", f"{tmp_path}/b/more.mp4"]
    store.write_table("sources/part.parquet", to_table([Source(uri, uri) for uri in sources], Source))
    clips, verdicts = [], []
    for name, rows in CLIPS.items():
        for number, (verdict, reasons) in enumerate(rows):
            key = f"{name}-{number}"
            clips.append(Clip(key, uris[name], name, 4.0 * number, 4.0 * number + 4, 64, 64, 25.0, 16_000))
            verdicts.append({"key": key, "verdict": verdict, "reasons": reasons, "pending": []})
    store.write_table("clips/part.parquet", to_table(clips, Clip))
    store.write_table("verdicts.parquet", pa.Table.from_pylist(verdicts, schema=VERDICT_SCHEMA))
    torn = (uris["torn.mp4"], uris["torn.mp4"], "source", "media", "no video stream", 1)
    lost = [dict(zip(QUARANTINE_SCHEMA.names, torn, strict=True))]
    store.write_table("quarantine/source.parquet", pa.Table.from_pylist(lost, schema=QUARANTINE_SCHEMA))
    return resolve_config(str(tmp_path / "config.yaml"))


def truths() -> list[Truth]:
    return [Truth(file, label, {"cut_s": "4.0"} if label == "cut" else {}) for file, label in LABELS.items()]


def test_each_label_asks_for_its_own_outcome(curation: Curation) -> None:
    results = {one.truth.file: one for one in check_labels(curation, truths())}
    assert {name: one.outcome for name, one in results.items()} == {
        "good.mp4": "kept",
        "lost.mp4": "dropped",
        "still.mp4": "dropped",
        "silent.mp4": "kept",
        "two.mp4": "kept",
        "torn.mp4": "quarantined",
        "open.mp4": "undecided",
    }
    assert {name for name, one in results.items() if not one.right} == {"lost.mp4", "silent.mp4"}
    assert {name for name, one in results.items() if one.named} == {"still.mp4"}


def test_the_table_counts_files_and_names_the_wrong_ones(curation: Curation) -> None:
    lines = accuracy_table(check_labels(curation, truths())).splitlines()
    assert lines[0].split() == [
        "label",
        "files",
        "right",
        "named",
        "kept",
        "undecided",
        "quarantined",
        "muted",
        "static",
    ]
    rows = {line.split()[0]: line.split()[1:] for line in lines[1:7]}
    assert rows["keep"] == ["2", "1", "–", "1", "0", "0", "1", "0"]
    assert rows["static"] == ["1", "1", "1", "0", "0", "0", "1", "1"]
    assert rows["broken"] == ["1", "1", "–", "0", "0", "1", "0", "0"]
    assert "wrong: 'lost.mp4' is keep, came out dropped muted" in lines
    assert lines[-1] == "right about 5 of 7 files (71 %)"
    assert accuracy_table([]).splitlines()[-1] == "right about 0 of 0 files"


def test_a_clip_cut_after_the_selection_is_undecided(curation: Curation) -> None:
    store = Store(curation.config.root)
    store.write_table("verdicts.parquet", VERDICT_SCHEMA.empty_table())
    (result,) = check_labels(curation, [Truth("good.mp4", "keep")])
    assert (result.outcome, result.right) == ("undecided", False)


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        (Truth("nowhere.mp4", "keep"), "not seen: nowhere.mp4"),
        (Truth("good.mp4", "keeep"), "unknown labels 'keeep'; there are broken, cut, keep"),
        (Truth("more.mp4", "keep"), "several files of one labelled name: more.mp4"),
    ],
)
def test_labels_that_do_not_fit_the_run_are_errors(curation: Curation, truth: Truth, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_labels(curation, [truth])


def test_a_clip_across_a_known_cut_is_wrong() -> None:
    clip = {"start_s": 0.0, "verdict": "dropped", "reasons": []}
    found = [compare(Truth("a", "cut", {"cut_s": "2"}), [{**clip, "end_s": end}], False).right for end in (2.01, 2.5)]
    assert found == [True, False]
    assert not compare(Truth("a", "cut", {"cut_s": "2"}), [], False).right


def test_offsets_and_evidence_are_compared_where_they_were_measured() -> None:
    measured = {"start_s": 0, "end_s": 4, "verdict": "kept", "reasons": [], "lip_sync.sync_evidence": 0.9}
    late = compare(Truth("late", "unsynced", {"shift_s": "0.4"}), [{**measured, "lip_sync.offset_frames": 9}], False)
    twice = compare(Truth("late", "unsynced", {"shift_s": "0.4"}), [measured, measured], False)
    assert (late.offset, late.sync, twice.offset, twice.sync) == (9, 0.9, None, None)
    assert offsets([late, twice]) == [("late", 10.0, 9)]
    results = [
        LabelResult(Truth("", label), "kept", (), True, False, sync=sync)
        for label, sync in (("keep", 0.9), ("keep", 0.4), ("unsynced", 0.4), ("unsynced", 0.1), ("keep", None))
    ]
    assert sync_auc(results) == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert sync_auc(results[:2]) is None
    text = accuracy_table([late, twice, *results])
    assert "offset of a known shift within ±2 frames: 1 of 2" in text and "AUC of in-sync evidence" in text


def test_a_label_file_is_read_row_by_row(tmp_path: Path) -> None:
    path = tmp_path / "labels.tsv"
    path.write_text("file\tlabel\torigin\tparams\na b.mp4\tcut\tx\tcut_s=1.5 who=ada\nc.mp4\tkeep\ty\t\n")
    assert read_labels(path) == [Truth("a b.mp4", "cut", {"cut_s": "1.5", "who": "ada"}), Truth("c.mp4", "keep")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file\tlabel\nx\tkeep\n", "no column params"),
        ("file\tlabel\tparams\nx\tcut\t\n", "x is labelled cut: its params need cut_s=SECONDS"),
        ("file\tlabel\tparams\nx\tkeep\tloud\n", "params of x: 'loud' is not of the form key=value"),
        ("file\tlabel\tparams\nx\tunsynced\tshift_s=far\n", "params of x: shift_s is not a number of seconds"),
    ],
)
def test_a_label_file_with_a_mistake_says_which(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "labels.tsv").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_labels(tmp_path / "labels.tsv")
