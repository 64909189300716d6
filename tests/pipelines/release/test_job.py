"""The release job, from videos to shards: a small curation run, published, extended and repaired."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import wave
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from curation.__main__ import main as curate
from pipelines.__main__ import main
from pipelines.release import shard as release_shard
from tests.media import factory
from tests.unitalking_data.samples import tree
from unitalking_data.describe import difference
from unitalking_data.layout import Previous
from unitalking_data.manifest import read_manifest
from unitalking_data.storage import Store
from unitalking_data.verification import verify

VIDEOS = 6
KEYFRAMES = {"g": "25", "bf": "0", "sc_threshold": "0", "preset": "ultrafast"}


@pytest.fixture(scope="module")
def curated(tmp_path_factory) -> Path:
    """Six videos of three speakers, one of them mute; two clips of 1.5 s each."""
    root = tmp_path_factory.mktemp("curated")
    rows = ["uri,licence,speaker,show"]
    for seed in range(VIDEOS):
        frames, times, sound = factory.talker(3.0, seed=seed)
        audio = None if seed == 5 else sound
        factory.write(root / f"v{seed}.mp4", frames, times, audio=audio, options=KEYFRAMES)
        rows.append(f"v{seed}.mp4,{'CC-BY-NC-4.0' if seed == 4 else 'CC-BY-4.0'},speaker{seed // 2},show{seed}")
    (root / "listing.csv").write_text("\n".join(rows) + "\n")
    rule = {"reason": "muted", "score": "loudness.has_audio", "min": 1, "why": "test"}
    (root / "thresholds.yaml").write_text(yaml.safe_dump({"rules": [rule]}))
    content = {
        "root": str(root / "run"),
        "listing": {"inputs": [str(root / "listing.csv")], "columns": {"licence": "licence"}},
        "cut": {"min_s": 1, "max_s": 1.5},
        "source": {"name": "source", "stages": {"source": {"backend": "content"}}},
        "groups": [{"name": "scorers", "stages": {"static": {}, "loudness": {}}, "batch_size": 16}],
        "thresholds": str(root / "thresholds.yaml"),
        "executor": {"kind": "local"},
    }
    (root / "curation.yaml").write_text(yaml.safe_dump(content))
    assert curate(["run", "--config", str(root / "curation.yaml")]) == 0
    return root


@pytest.fixture
def config(curated, tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr("pipelines.release.job.code_revision", lambda: "some revision")
    return configured(curated, tmp_path)


@pytest.fixture(scope="module")
def published(curated, tmp_path_factory) -> Path:
    """The release of the configuration as it is."""
    folder = tmp_path_factory.mktemp("published")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.release.job.code_revision", lambda: "some revision")
        assert publish(configured(curated, folder)) == 0
    return folder / "release"


@pytest.fixture
def v1(published, config) -> Path:
    """It stands already where the test's configuration puts it."""
    shutil.copytree(published, config.parent / "release")
    return config.parent / "release" / "v1"


def configured(curated: Path, folder: Path) -> Path:
    content = {
        "version": "v1",
        "root": str(folder / "release"),
        "curation": str(curated / "curation.yaml"),
        "media": {"preset": "ultrafast"},
        "split": {"shares": {"train": 0.5, "val": 0.5}, "speaker": "speaker"},
        "shard_clips": 4,
        "executor": {"kind": "local"},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    return folder / "config.yaml"


def publish(config: Path, *overrides: str) -> int:
    return main(["release", "--config", str(config), *(part for o in overrides for part in ("--set", o))])


def meta(root: Path) -> list[dict]:
    return pq.read_table(root / "meta").to_pylist()


def members(root: Path, key: str) -> dict[str, bytes]:
    for path in sorted((root / "media").glob("*.tar")):
        with tarfile.open(path) as tar:
            found = {m.name.partition(".")[2]: tar.extractfile(m).read() for m in tar if m.name.startswith(key + ".")}
        if found:
            return found
    return {}


def test_a_release_of_a_curation_run(published):
    root = published / "v1"
    assert not verify(str(root)).problems
    rows = meta(root)
    assert len(rows) == 10 and {row["speaker"] for row in rows} == {"speaker0", "speaker1", "speaker2"}
    splits = {row["speaker"]: row["split"] for row in rows}
    assert all(row["split"] == splits[row["speaker"]] for row in rows)
    for row in rows:
        files = members(root, row["key"])
        assert list(files) == ["mp4", "wav", "json"]
        with wave.open(io.BytesIO(files["wav"])) as sound:
            assert sound.getnframes() == round(row["duration_s"] * row["audio_rate"])
        assert json.loads(files["json"])["licence"] == row["licence"]
        assert row["loudness"]["status"] == "value" and row["loudness"]["mean_dbfs"] < 0
        assert row["source_uri"] in {f"v{seed}.mp4" for seed in range(5)}
    cut = {(row["start_s"] == 0, row["video_cut"]) for row in rows}
    assert cut == {(True, "copy"), (False, "encode")}
    assert {row["video_cut_reason"] for row in rows} == {None, "cut between keyframes"}
    rejected = pq.read_table(root / "rejected").to_pylist()
    assert [(row["verdict"], row["reasons"], row["source_uri"]) for row in rejected] == [
        ("dropped", ["muted"], "v5.mp4")
    ] * 2
    card = (root / "DATASET_CARD.md").read_text()
    assert "| muted | loudness.has\\_audio |" in card or "| muted | loudness.has_audio |" in card
    assert "| kept | 10 | clips |" in card and "CC-BY-NC-4.0" in card
    assert str(published.parent.parent) not in card + (root / "manifest.json").read_text()
    description = pq.read_schema(root / rows_part(root)).field("loudness").type.field("mean_dbfs").metadata
    assert b"description" in description


def rows_part(root: Path) -> str:
    return read_manifest(Store(root)).shards[0].part


def test_repeated_and_interrupted_builds_are_the_same_bytes(config, published, monkeypatch, capsys):
    calls = []

    def stopping(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return release_shard.build_shard(*arguments)

    monkeypatch.setattr("pipelines.release.job.build_shard", stopping)
    assert publish(config) == 130
    assert "run again to go on" in capsys.readouterr().err
    assert publish(config) == 0
    printed = capsys.readouterr()
    assert len(calls) == 1 + len(read_manifest(Store(config.parent / "release/v1")).shards)
    assert "release v1: 10 clips" in printed.out and f"{len(calls) - 2} shards to write" in printed.err
    assert tree(config.parent / "release") == tree(published)
    assert publish(config) == 0  # finished already
    assert "0 shards to write" in capsys.readouterr().err


def test_ray_builds_the_same_release(config, published):
    ray = pytest.importorskip("ray")
    try:
        assert publish(config, "executor.kind=ray", "executor.address=local", "workers.max_actors=2") == 0
    finally:
        ray.shutdown()
    assert tree(config.parent / "release") == tree(published)


def test_variants(config):
    assert publish(config, "media.fps=24", "media.audio_rate=44100", "media.preset=ultrafast") == 0
    rows = meta(config.parent / "release" / "v1")
    assert {(row["fps"], row["audio_rate"], row["frames"]) for row in rows} == {(24.0, 44100, 36)}
    assert {row["video_cut_reason"] for row in rows} == {"frame rate"}


def test_a_takedown_over_a_previous_version(config, curated, v1):
    old = meta(v1)
    key = old[0]["key"]
    gone = config.parent / "gone.txt"
    gone.write_text(f"# by request\n{key}\n{curated / 'v3.mp4'}\n")
    assert publish(config, "version=v2", "previous=v1", f"takedown={gone}") == 0
    root = config.parent / "release" / "v2"
    out = {key} | {row["key"] for row in old if row["source_uri"] == "v3.mp4"}
    assert {row["key"] for row in meta(root)} == {row["key"] for row in old} - out
    for name, data in tree(root).items():
        assert not any(clip.encode() in data for clip in out) or name.startswith("rejected/")
    withdrawn = [row for row in pq.read_table(root / "rejected").to_pylist() if row["verdict"] == "withdrawn"]
    assert {row["key"] for row in withdrawn} == out
    assert {row["source"] for row in withdrawn} == {row["source_uri"] for row in withdrawn} == {None}
    assert not verify(str(root)).problems
    change = difference(*(Previous.open(str(config.parent / "release" / v)) for v in ("v1", "v2")))
    assert set(change.withdrawn) == out and not change.changed and not change.moved and not change.added
    # a later version need not be told again
    assert publish(config, "version=v3", "previous=v2") == 0
    root = config.parent / "release" / "v3"
    assert out.isdisjoint(row["key"] for row in meta(root))
    assert read_manifest(Store(root)).rejected["withdrawn"] == len(out)


def test_licences_that_may_be_published(config):
    assert publish(config, "licences=[CC-BY-4.0]", "split.shares={train: 1}") == 0
    root = config.parent / "release" / "v1"
    assert {row["licence"] for row in meta(root)} == {"CC-BY-4.0"}
    refused = [row for row in pq.read_table(root / "rejected").to_pylist() if row["verdict"] == "unlicensed"]
    assert [row["reasons"] for row in refused] == [["licence CC-BY-NC-4.0"]] * 2


def test_captions_and_references_that_come_later(config, v1):
    keys = [row["key"] for row in meta(v1)]
    captions, references = config.parent / "captions", config.parent / "references"
    captions.mkdir()
    references.mkdir()
    atoms = [{"key": key, "video_short": f"a head, {key}", "language": "en"} for key in keys[:-1]]
    pq.write_table(pa.Table.from_pylist(atoms), captions / "a.parquet")
    audios = [
        {
            "key": key,
            "take": take,
            "audio": f"{key}{take}".encode(),
            "text": "hello",
            "similarity": 0.5,
            "licence": "MIT",
        }
        for key in keys
        for take in range(3)
    ]
    pq.write_table(pa.Table.from_pylist(audios), references / "a.parquet")
    both = (f"captions={captions}", f"references={references}")
    assert publish(config, "version=v2", "previous=v1", *both) == 0
    root = config.parent / "release" / "v2"
    assert not verify(str(root)).problems
    rows = {row["key"]: row for row in meta(root)}
    assert rows[keys[0]]["video_short"] == f"a head, {keys[0]}" and rows[keys[-1]]["video_short"] is None
    files = members(root, keys[0])
    assert list(files) == ["mp4", "wav", "ref0.wav", "ref1.wav", "ref2.wav", "json"]
    assert files["ref1.wav"] == f"{keys[0]}1".encode()
    assert json.loads(files["json"])["video_short"] == f"a head, {keys[0]}"
    refs = pq.read_table(root / "refs").to_pylist()
    assert len(refs) == 30 and refs[0]["similarity"] == 0.5
    assert read_manifest(Store(root)).columns == ("video_short", "language", "references")
    assert files["mp4"] == members(v1, keys[0])["mp4"]
    # one changed caption touches one shard
    atoms[0]["video_short"] = "another"
    pq.write_table(pa.Table.from_pylist(atoms), captions / "a.parquet")
    assert publish(config, "version=v3", "previous=v2", *both) == 0
    change = difference(*(Previous.open(str(config.parent / "release" / v)) for v in ("v2", "v3")))
    assert change.changed == [atoms[0]["key"]] and len(change.rewritten_shards) == 1 and not change.new_shards


def test_a_source_that_is_gone_costs_its_clips(config, curated):
    hidden = curated / "hidden"
    (curated / "v2.mp4").rename(hidden)
    try:
        assert publish(config) == 0
    finally:
        hidden.rename(curated / "v2.mp4")
    root = config.parent / "release" / "v1"
    broken = [row for row in pq.read_table(root / "rejected").to_pylist() if row["verdict"] == "broken"]
    assert [row["source_uri"] for row in broken] == ["v2.mp4"] * 2
    assert all("no such file" in row["reasons"][0] and str(curated) not in row["reasons"][0] for row in broken)
    assert len(meta(root)) == 8


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["split.shares={train: 0.5, val: 0.5, rare: 0.000001}"], "split rare would be empty"),
        (["split.speaker=nobody"], "no clip's listing has a column 'nobody'"),
        (["sync.correct=true"], "sync.correct needs the stage lip_sync"),
        (["previous=v1"], "cannot be built over itself"),
        (["previous=v0"], "not a release"),
        (["version=../x"], "version"),
        (["media.audio_rate=12345"], "not a rate of AAC"),
        (["licences=[none]"], "none of the 12 clips"),
        (["takedown=/nowhere/list.txt"], "takedown"),
        (["captions=/nowhere"], "no Parquet files"),
        (["curation=/nowhere.yaml"], "cannot read the configuration"),
        (["curation_set=[root=/nowhere]"], "run ingest first"),
        (["unknown=1"], "unknown"),
    ],
)
def test_a_users_mistake_is_named(config, capsys, overrides, message):
    assert publish(config, *overrides) == 2
    assert message in capsys.readouterr().err
    assert not (config.parent / "release").exists() or not list((config.parent / "release").rglob("*.tar"))


def test_tables_that_are_no_captions(config, capsys):
    folder = config.parent / "captions"
    folder.mkdir()
    for rows, message in (
        ([{"key": "a", "colour": "red"}], "none of the columns"),
        ([{"name": "a"}], "no column key"),
        ([{"key": "a", "video_short": "x"}] * 2, "rows stand twice"),
    ):
        pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet")
        assert publish(config, f"captions={folder}") == 2
        assert message in capsys.readouterr().err


def test_another_release_under_the_same_version(config, v1, capsys):
    before = tree(config.parent / "release")
    assert publish(config, "media.fps=24") == 2
    assert "another version" in capsys.readouterr().err
    assert tree(config.parent / "release") == before


def test_sound_is_moved_where_lip_sync_is_sure(config, monkeypatch):
    """What the job does with a measured offset; that it is measured right is lip_sync's own test."""
    from pipelines.release import inputs

    monkeypatch.setattr(inputs, "_shifts", lambda c, u, clips: pa.array([-0.2] + [0.0] * (len(clips) - 1)))
    assert publish(config) == 0
    root = config.parent / "release" / "v1"
    rows = meta(root)
    (moved,) = [row for row in rows if row["audio_shift_s"]]
    assert moved["audio_shift_s"] == -0.2
    samples = np.frombuffer(members(root, moved["key"])["wav"][44:], "<i2")
    assert len(samples) == round(moved["duration_s"] * moved["audio_rate"])
    assert "1 clips had their sound moved" in (root / "DATASET_CARD.md").read_text()
