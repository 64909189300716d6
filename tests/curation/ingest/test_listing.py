"""Listings of every form become one table of sources."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pydantic import ValidationError

from curation.ingest.listing import Columns, ListingConfig, ListingError, list_sources
from engine.items import Source, from_table, schema_of

CONFIGS = Path(__file__).resolve().parents[3] / "configs" / "listings"

# The heading and shape of OpenHumanVid's published CSV parts: paths without extension below ``clips/``, and
# headings that are empty at the end.
OPENHUMANVID = """\
clip_id,path,caption,luminance_min,luminance_max,blur_min,blur_max,aesthetic,technical_score,global_motion,,
007,clips/part_001/f6/05/007,"A man, who ""talks"",
on two lines",12.5,200,0.1,0.9,5.1,0.8,1.5,,
008,clips/part_001/f6/06/008,A woman <script>alert(1)</script>,1e-3,,0.1,0.9,5.1,0.8,1.5,,
"""


def listed(*inputs: object, **settings: object) -> list[Source]:
    return list(from_table(list_sources(ListingConfig(inputs=tuple(map(str, inputs)), **settings)), Source))


def uris(*inputs: object, **settings: object) -> list[str]:
    return [source.uri for source in listed(*inputs, **settings)]


def touch(*paths: Path) -> list[str]:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return sorted(map(str, paths))


def test_a_folder_is_searched_to_any_depth_for_media_alone(tmp_path: Path) -> None:
    media = touch(tmp_path / "a.mp4", tmp_path / "b" / "c" / "d.MKV", tmp_path / "b" / "e.mov")
    touch(tmp_path / "labels.tsv", tmp_path / "b" / "poster.jpg", tmp_path / "mp4")
    assert uris(tmp_path) == media
    assert uris(tmp_path, extensions=("mkv",)) == [str(tmp_path / "b" / "c" / "d.MKV")]


def test_a_glob_takes_media_and_a_glob_of_tables_takes_their_rows(tmp_path: Path) -> None:
    media = touch(tmp_path / "a1.mp4", tmp_path / "a2.mp4")
    touch(tmp_path / "b1.mp4")
    (tmp_path / "a.txt").write_text("a1.mp4\n")
    (tmp_path / "b.txt").write_text("b1.mp4\n")
    assert uris(tmp_path / "a*") == media
    assert uris(tmp_path / "*.txt") == [str(tmp_path / "a1.mp4"), str(tmp_path / "b1.mp4")]
    assert uris(tmp_path / "**" / "a1.*") == media[:1]


def test_a_list_file_names_paths_and_urls(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("\ufeffa b.mp4\r\n\nsub/./x.mp4\n/else/y.mp4\ns3://bucket/z.mp4\n")
    expected = {f"{tmp_path}/a b.mp4", f"{tmp_path}/sub/x.mp4", "/else/y.mp4", "s3://bucket/z.mp4"}
    assert set(uris(tmp_path / "list.txt")) == expected


def test_single_files_and_several_inputs_join(tmp_path: Path) -> None:
    media = touch(tmp_path / "one.mp4", tmp_path / "folder" / "two.mp4")
    assert uris(tmp_path / "one.mp4", tmp_path / "folder", tmp_path / "one.mp4") == sorted(media)


def test_openhumanvid_enters_by_its_configuration(tmp_path: Path) -> None:
    settings = yaml.safe_load((CONFIGS / "openhumanvid.yaml").read_text())
    (tmp_path / "OpenHumanVid_part_001.csv").write_text(OPENHUMANVID)
    settings |= {"inputs": [str(tmp_path / "OpenHumanVid_part_*.csv")], "root": "s3://videos/OpenHumanVid"}
    table = list_sources(ListingConfig.model_validate(settings))
    assert table.schema.equals(schema_of(Source))
    first, second = from_table(table, Source)
    assert first.uri == "s3://videos/OpenHumanVid/part_001/f6/05/007.mp4"
    assert first == Source.of(first.uri, first.licence, first.provenance)
    provenance = json.loads(first.provenance)
    assert provenance["clip_id"] == "007"
    assert provenance["caption"] == 'A man, who "talks",\non two lines'
    assert provenance["luminance_max"] == "200"
    assert "" not in provenance and "path" not in provenance
    assert json.loads(second.provenance)["caption"] == "A woman <script>alert(1)</script>"


def test_an_internal_collection_in_parquet_enters_by_its_configuration(tmp_path: Path) -> None:
    settings = yaml.safe_load((CONFIGS / "internal.yaml").read_text())
    table = pa.table(
        {
            "media_url": ["s3://studio/a.mp4", "b.mov"],
            "rights": ["CC-BY-4.0", None],
            "speaker": [{"id": 7, "name": "Zoë"}, None],
            "takes": [[1, 2], []],
            "loudness": [float("nan"), -23.5],
            'it\'s "odd"': [True, False],
        }
    )
    pq.write_table(table, tmp_path / "takes.parquet")
    settings |= {"inputs": [str(tmp_path / "takes.parquet")], "root": None}
    first, second = from_table(list_sources(ListingConfig.model_validate(settings)), Source)
    assert (second.uri, second.licence) == ("s3://studio/a.mp4", "CC-BY-4.0")
    assert (first.uri, first.licence) == (f"{tmp_path}/b.mov", settings["licence"])
    odd = {'it\'s "odd"': True}
    expected = {"speaker": {"id": 7, "name": "Zoë"}, "takes": [1, 2], "loudness": None}
    assert json.loads(second.provenance) == expected | odd


def test_json_lines_keep_their_values(tmp_path: Path) -> None:
    rows = [{"uri": "a.mp4", "n": 1, "deep": {"x": [1, None]}}, {"uri": "b.mp4", "n": "one", "extra": "\u2028"}]
    (tmp_path / "rows.jsonl").write_text("\n\n".join(json.dumps(row) for row in rows))
    first, second = listed(tmp_path / "rows.jsonl")
    assert json.loads(first.provenance) == {"n": 1, "deep": {"x": [1, None]}}
    assert json.loads(second.provenance) == {"n": "one", "extra": "\u2028"}


def test_rows_of_one_file_with_segments_become_one_source(tmp_path: Path) -> None:
    rows = ["id,start,end,text", "x,0:01:05.5,0:01:10,later", "x,3,8.25,first", "x,3,8.25,again", "y,0,4,other"]
    (tmp_path / "cuts.csv").write_text("\n".join(rows))
    columns = Columns(uri="id", suffix=".mp4", start="start", end="end")
    table = list_sources(ListingConfig(inputs=(str(tmp_path / "cuts.csv"),), columns=columns))
    x, y = from_table(table, Source)
    assert x.uri == f"{tmp_path}/x.mp4"
    assert json.loads(x.segments) == [[3, 8.25, {"text": "first"}], [65.5, 70, {"text": "later"}]]
    assert json.loads(y.segments) == [[0, 4, {"text": "other"}]]
    assert table.schema.metadata == {b"rows": b"4", b"duplicates": b"1"}


def test_a_row_for_the_whole_file_outdoes_its_segments(tmp_path: Path) -> None:
    rows = [{"uri": "a.mp4", "s": 1, "e": 5, "t": "cut"}, {"uri": "a.mp4", "s": None, "e": None, "t": "whole"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    with pytest.raises(ListingError, match="row 2 has no segment between None and None"):
        listed(tmp_path / "rows.parquet", columns=Columns(start="s", end="e"))
    (tmp_path / "all.txt").write_text("a.mp4\n")
    pq.write_table(pa.Table.from_pylist(rows[:1]), tmp_path / "rows.parquet")
    (source,) = listed(tmp_path / "rows.parquet", tmp_path / "all.txt", columns=Columns(start="s", end="e"))
    assert source.segments == ""


def test_duplicates_collapse_and_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("uri,licence,note\nx.mp4,CC0-1.0,first\n./x.mp4,CC-BY-4.0,second\ny.mp4,,third\n")
    columns = Columns(licence="licence")
    config = ListingConfig(inputs=(str(tmp_path / "a.csv"),), columns=columns, licence="unknown")
    table = list_sources(config)
    assert table.schema.metadata == {b"rows": b"3", b"duplicates": b"1"}
    assert table["licence"].to_pylist() == ["CC0-1.0", "unknown"]
    assert json.loads(table["provenance"][0].as_py()) == {"note": "first"}


HOSTILE = [
    "a b.mp4",
    "quo'te\".mp4",
    "new\nline.mp4",
    "<script>alert(1)<",
    "ünï😀.mp4",
    "[x]*?.mp4",
    "%2e%2e.mp4",
    "-rf.mp4",
]


def test_hostile_names_survive_every_form(tmp_path: Path) -> None:
    names = [name if name.endswith(".mp4") else f"{name}.mp4" for name in HOSTILE]
    expected = touch(*(tmp_path / "media" / name for name in names))
    assert uris(tmp_path / "media") == expected
    assert uris(tmp_path / "media" / "[x]*?.mp4") == [str(tmp_path / "media" / "[x]*?.mp4")]
    pq.write_table(pa.table({"uri": names, "copy": names}), tmp_path / "media" / "t.parquet")
    (tmp_path / "media" / "t.jsonl").write_text("\n".join(json.dumps({"uri": name, "copy": name}) for name in names))
    quoted = ('"' + name.replace('"', '""') + '"' for name in names)
    (tmp_path / "media" / "t.csv").write_text("uri,copy\n" + "\n".join(f"{name},{name}" for name in quoted))
    for suffix in ("parquet", "jsonl", "csv"):
        sources = listed(tmp_path / "media" / f"t.{suffix}")
        assert [source.uri for source in sources] == expected
        assert all(json.loads(s.provenance)["copy"] == s.uri.removeprefix(f"{tmp_path}/media/") for s in sources)


def test_a_name_that_is_not_utf8_is_refused_by_name(tmp_path: Path) -> None:
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4"))).touch()
    with pytest.raises(ListingError, match=r"rename .*caf"):
        listed(tmp_path)


@pytest.mark.parametrize("path", ["../../etc/passwd", "a/../../x.mp4", "..", "a/x://../../../y.mp4", "./../x.mp4"])
def test_a_path_does_not_leave_its_listing_folder(tmp_path: Path, path: str) -> None:
    (tmp_path / "list.txt").write_text(f"fine.mp4\n{path}\n")
    with pytest.raises(ListingError, match="leaves the folder"):
        listed(tmp_path / "list.txt")


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "file:///etc/passwd",
        "file:///data/videos/%2e%2e/x.mp4",
        "s3://other/x.mp4",
        "/data/videos-of-others/x.mp4",
        "../x.mp4",
    ],
)
def test_with_a_root_no_path_leaves_it(tmp_path: Path, path: str) -> None:
    (tmp_path / "list.txt").write_text(f"{path}\n")
    with pytest.raises(ListingError, match=r"leaves the folder /data/videos; set listing\.root"):
        listed(tmp_path / "list.txt", root="/data/videos")


def test_a_path_does_not_leave_its_bucket(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a/../b.mp4\ns3://bucket/videos/c.mp4\n")
    assert uris(tmp_path / "list.txt", root="s3://bucket/videos") == [
        "s3://bucket/videos/b.mp4",
        "s3://bucket/videos/c.mp4",
    ]
    for path in ("../private/x.mp4", "s3://bucket/videos/../private/x.mp4", "s3://bucket/../other/x.mp4"):
        (tmp_path / "list.txt").write_text(path)
        with pytest.raises(ListingError, match="leaves the folder s3://bucket/videos"):
            listed(tmp_path / "list.txt", root="s3://bucket/videos")


def test_inside_the_root_paths_are_made_plain(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a/../b.mp4\n/data/videos/c.mp4\nfile:///data/videos/d.mp4\n")
    assert uris(tmp_path / "list.txt", root="/data/videos/") == [f"/data/videos/{name}.mp4" for name in "bcd"]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_a_missing_column_names_file_wanted_and_present(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows.{suffix}"
    table = pa.table({"video": ["a.mp4"], "caption": ["talk"]})
    if suffix == "parquet":
        pq.write_table(table, path)
    elif suffix == "jsonl":
        path.write_text(json.dumps(table.to_pylist()[0]))
    else:
        mark = "," if suffix == "csv" else "\t"
        path.write_text(f"video{mark}caption\na.mp4{mark}talk\n")
    with pytest.raises(ListingError) as error:
        listed(path, columns=Columns(uri="path"))
    message = str(error.value)
    assert str(path) in message and "no column 'path' (columns.uri)" in message and "'video', 'caption'" in message


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "uri,n\na.mp4,1\nb.mp4\n", "Expected 2 columns, got 1"),
        ("a.csv", "uri,n\n,1\n", "row 1 has no path"),
        ("a.csv", "", "no column 'uri'"),
        ("a.csv", b"uri\n\xff\xfe.mp4\n", "can't decode"),
        ("a.jsonl", "{}\n", "no column 'uri'"),
        ("a.jsonl", '{"uri": "a.mp4"}\n{"uri": \n', "line 2"),
        ("a.jsonl", '["a.mp4"]\n', "a JSON object is needed"),
        ("a.jsonl", '{"uri": "a\\ud800.mp4"}\n', "surrogates not allowed"),
        ("a.parquet", "not parquet", "a.parquet"),
        ("a.txt", "\n\n", "no media found"),
        ("a.txt", b"\xff.mp4\n", "can't decode"),
        ("a.exe", "", "neither a listing"),
    ],
)
def test_bad_listings_are_refused(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ListingError, match=message):
        listed(path)


@pytest.mark.parametrize(("start", "end"), [("5", "5"), ("6", "5"), ("-1", "5"), ("nan", "5"), ("", "5"), ("x", "5")])
def test_a_segment_needs_length(tmp_path: Path, start: str, end: str) -> None:
    (tmp_path / "a.csv").write_text(f"uri,start,end\nok.mp4,0,1\na.mp4,{start},{end}\n")
    with pytest.raises(ListingError, match="row 2"):
        listed(tmp_path / "a.csv", columns=Columns(start="start", end="end"))


@pytest.mark.parametrize("name", ["absent", "absent.mp4", "*.mp4", "empty"])
def test_nothing_listed_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ListingError, match=r"no such file|matches nothing|no media found"):
        listed(tmp_path / name)


def test_unknown_settings_and_half_a_segment_are_errors() -> None:
    with pytest.raises(ValidationError, match="extra"):
        ListingConfig(inputs=(), wat=1)
    with pytest.raises(ValidationError, match="come together"):
        Columns(start="start")
