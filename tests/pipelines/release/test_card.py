"""The documents say what the release holds, and only that."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.release.card import write_documents
from tests.unitalking_data import samples
from unitalking_data.licences import DUTIES, PERMISSIONS, Licence, lookup, registry, together
from unitalking_data.schema import MEDIA_FIELDS, described, meta_schema, scores_field
from unitalking_data.writer import ReleaseWriter


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    root = tmp_path_factory.mktemp("card")
    manifest = samples.build(root / "v1", samples.keys(0, 30), version="v1")
    return root / "v1", manifest


def test_the_card(release):
    root, manifest = release
    card = (root / "DATASET_CARD.md").read_text()
    assert "# Generated clips, v1" in card and "nobody talks" in card
    assert "30 clips, 0.02 hours" in card
    for name, totals in manifest.splits.items():
        assert f"| {name} | {totals.clips} | " in card
    assert "| 64×32 | 30 |" in card and "| en | 30 |" in card
    assert "Captions: video_short (30 clips), language (30 clips)." in card and "Reference voices: 3 takes" in card
    assert "| CC-BY-4.0 | 30 | 0.02 | yes | yes |" in card
    assert "\n\n\n\n" not in card


def test_a_release_without_captions_says_so(tmp_path):
    manifest = samples.build(tmp_path, samples.keys(0, 20), changed={"video_short": None, "language": None})
    assert manifest.columns == ("references",)
    assert "**Captions: none.**" in (tmp_path / "DATASET_CARD.md").read_text()


def test_the_schema(release):
    root, _ = release
    text = (root / "SCHEMA.md").read_text()
    assert "30 rows in" in text and "60 rows in" in text
    for name in meta_schema().names:
        assert f"| {name} | " in text
    assert "| video_short | string | 100 % | short caption of the picture |" in text
    assert "| transcript | string | 0 % |" in text


def test_tables_describe_themselves(release):
    root, _ = release
    for path in sorted((root / "meta").iterdir()):
        schema = pq.read_schema(path)
        assert schema.metadata[b"schema"] == b"unitalking.meta" and schema.metadata[b"schema_version"] == b"1"
        assert all(field.metadata[b"description"] for field in schema)


def test_scores_are_struct_columns_with_descriptions(tmp_path):
    scores = scores_field("loudness", [described("mean_dbfs", pa.float32(), "mean level")])
    writer = ReleaseWriter(str(tmp_path), meta_schema([scores]))
    keys = samples.keys(0, 3)
    plan = pa.table({"key": keys, "split": ["train"] * 3, "fingerprint": keys})
    for shard in writer.begin("v1", plan, splits=["train"]):
        rows = samples.rows(shard.keys, loudness={"status": "value", "version": "1-a", "mean_dbfs": -20.0})
        writer.write(shard, rows, samples.make)
    writer.finish(documents=write_documents)
    schema = pq.read_schema(next((tmp_path / "meta").iterdir()))
    assert schema.field("loudness").type.field("mean_dbfs").metadata[b"description"] == b"mean level"
    assert "| loudness.mean_dbfs | float | 100 % | mean level |" in (tmp_path / "SCHEMA.md").read_text()


def test_licences_as_data(release):
    root, _ = release
    content = json.loads((root / "LICENSES.json").read_text())
    (media,) = content["media"]
    assert media["licence"] == "CC-BY-4.0" and media["clips"] == 30 and media["commercial"] is True
    assert content["together"]["commercial"] is True and content["together"]["attribution"] is True


@pytest.mark.parametrize(
    ("names", "commercial", "attribution"),
    [
        (["MIT", "CC-BY-4.0"], True, True),
        (["CC0-1.0"], True, False),
        (["CC-BY-4.0", "CC-BY-NC-4.0"], False, True),
        (["CC-BY-4.0", "a licence nobody knows"], None, True),
        (["a licence nobody knows", "CC-BY-NC-4.0"], False, True),
        ([], None, None),
    ],
)
def test_what_holds_for_several_licences(names, commercial, attribution):
    found = together(lookup(name) for name in names)
    assert (found["commercial"], found["attribution"]) == (commercial, attribution)
    assert set(found) == {*PERMISSIONS, *DUTIES}


def test_lookup():
    assert lookup(" cc-by-4.0 ").title == registry()["CC-BY-4.0"].title
    assert lookup("unknown").commercial is None and lookup("") == Licence()


def test_what_comes_from_data_breaks_no_table(tmp_path):
    samples.build(tmp_path, samples.keys(0, 20), changed={"licence": "a | b\n<script>`x`", "language": "*x*"})
    card = (tmp_path / "DATASET_CARD.md").read_text()
    assert "<script>" not in card and "| a \\| b &lt;script&gt;\\`x\\` | 20 |" in card


def test_media_fields_are_all_that_a_maker_gives():
    assert set(samples.MEDIA) | {"video_cut_reason"} == {field.name for field in MEDIA_FIELDS}
