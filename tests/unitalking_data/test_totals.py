"""Totals are counted from the tables, whatever was written beside them."""

from __future__ import annotations

from dataclasses import replace

from tests.unitalking_data import samples
from unitalking_data.manifest import read_manifest
from unitalking_data.storage import Store
from unitalking_data.totals import with_totals


def test_sources_speakers_and_columns_with_values(tmp_path):
    clips = samples.keys(0, 40)
    samples.build(tmp_path, clips, changed={"speaker": "ada", "transcript_segments": []})
    manifest = read_manifest(Store(tmp_path))
    bare = replace(
        manifest, columns=(), splits={n: replace(t, sources=0, speakers=0) for n, t in manifest.splits.items()}
    )
    found = with_totals(Store(tmp_path), bare)
    assert found.columns == ["video_short", "language", "transcript_segments", "references"]
    assert {name: totals.speakers for name, totals in found.splits.items()} == {"train": 1, "val": 1}
    assert sum(totals.sources for totals in found.splits.values()) == len({samples.source_of(key) for key in clips})
    assert replace(found, columns=tuple(found.columns)) == manifest


def test_nothing_to_count(tmp_path):
    changed = {"video_short": None, "language": None}
    samples.build(tmp_path, samples.keys(0, 20), changed=changed)
    manifest = read_manifest(Store(tmp_path))
    found = with_totals(Store(tmp_path), replace(manifest, files=()))
    assert found.columns == [] and {totals.speakers for totals in found.splits.values()} == {0}
