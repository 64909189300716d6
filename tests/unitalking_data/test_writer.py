"""A release is a function of its inputs: repeated, interrupted, extended, on a disk or in an object store."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import random
import resource
import signal
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unitalking_data import samples
from unitalking_data.layout import Previous
from unitalking_data.manifest import FileEntry, ManifestError, read_manifest
from unitalking_data.schema import REJECTED_SCHEMA
from unitalking_data.storage import Store
from unitalking_data.verification import verify
from unitalking_data.writer import ReleaseError

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.unitalking_data.samples"])


def test_two_builds_are_the_same_bytes(tmp_path):
    samples.build(tmp_path / "a", samples.keys(0, 60))
    samples.build(tmp_path / "b", list(reversed(samples.keys(0, 60))))
    first, second = samples.tree(tmp_path / "a"), samples.tree(tmp_path / "b")
    assert first == second
    assert not verify(str(tmp_path / "a")).problems
    names = {name.split("/")[0] for name in first}
    assert names == {
        "DATASET_CARD.md",
        "SCHEMA.md",
        "LICENSES.json",
        "manifest.json",
        "_SUCCESS",
        "meta",
        "refs",
        "media",
    }


def test_without_a_writer_of_documents_there_are_none(tmp_path):
    """The rest is the same release: the documents are all that ``finish`` leaves to its caller."""
    with_them = samples.build(tmp_path / "a", samples.keys(0, 30))
    without = samples.build(tmp_path / "b", samples.keys(0, 30), documents=None)
    documents = {"DATASET_CARD.md", "SCHEMA.md", "LICENSES.json"}
    left = [entry for entry in with_them.files if entry.path not in documents]
    assert without == replace(with_them, files=tuple(left))
    assert set(samples.tree(tmp_path / "a")) - set(samples.tree(tmp_path / "b")) == documents
    assert not verify(str(tmp_path / "b")).problems


def test_documents_see_the_whole_manifest_and_stand_in_it(tmp_path):
    seen = []

    def write(store, manifest):
        seen.append(manifest)
        store.write_bytes("README", b"hello")
        yield FileEntry("README", 5, hashlib.sha256(b"hello").hexdigest())

    manifest = samples.build(tmp_path, samples.keys(0, 30), documents=write)
    (shown,) = seen
    assert shown.clips == 30 and "references" in shown.columns and shown.splits == manifest.splits
    assert [entry.path for entry in manifest.files] == [*(entry.path for entry in shown.files), "README"]
    assert not verify(str(tmp_path)).problems


def test_builds_killed_at_random_moments_are_continued_to_the_same_bytes(tmp_path):
    clips, rng = samples.keys(0, 80), random.Random(7)
    began = time.monotonic()
    samples.build(tmp_path / "undisturbed", clips, wait_s=0.002)
    whole_s = time.monotonic() - began
    undisturbed, kills, number = samples.tree(tmp_path / "undisturbed"), 0, 0
    while kills < 10:
        root = tmp_path / str(number)
        process = FORKS.Process(target=samples.build, args=(root, clips), kwargs={"wait_s": 0.002})
        process.start()
        process.join(rng.uniform(0.05, 1.2) * whole_s)
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        if (root / "_SUCCESS").exists() or kills == 10:
            samples.build(root, clips)  # what is finished is left alone, but swept
            assert samples.tree(root) == undisturbed
            number += 1
        elif root.exists():
            with pytest.raises(ManifestError):
                verify(str(root))


@pytest.mark.parametrize(
    "name",
    [
        "_build/layout.parquet",
        "media/train-000000.tar",
        "meta/part-000001.parquet",
        "manifest.json",
        "_SUCCESS",
    ],
)
def test_a_build_that_stopped_before_a_file_goes_on_with_it(tmp_path, name, monkeypatch):
    """The moments that a random kill seldom meets: just before each kind of file takes its name."""
    clips = samples.keys(0, 40)
    samples.build(tmp_path / "undisturbed", clips)
    replace = Path.replace

    def stop(self, target):
        if str(target).endswith(name):
            raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            samples.build(tmp_path / "r", clips)
    assert not (tmp_path / "r" / name).exists()
    samples.build(tmp_path / "r", clips)
    assert samples.tree(tmp_path / "r") == samples.tree(tmp_path / "undisturbed")


def test_a_later_version_takes_over_what_did_not_change(tmp_path):
    first = samples.build(tmp_path / "v1", samples.keys(0, 80), version="v1")
    gone, changed = samples.keys(0, 1)[0], samples.keys(30, 31)[0]
    second = samples.build(
        tmp_path / "v2",
        samples.keys(1, 100),
        version="v2",
        previous=tmp_path / "v1",
        fingerprint=lambda key: f"of {key}" + (" changed" if key == changed else ""),
    )
    before, after = Previous.open(str(tmp_path / "v1")), Previous.open(str(tmp_path / "v2"))
    home = {row["key"]: row["shard"] for row in before.index.to_pylist()}
    touched = {home[gone], home[changed]}
    for shard in first.shards:
        ours, theirs = tmp_path / "v1" / shard.path, tmp_path / "v2" / shard.path
        assert ours.samefile(theirs) == (shard.number not in touched)
    assert {shard.number for shard in second.shards} >= {shard.number for shard in first.shards}
    # nothing moved between splits, and the withdrawn clip is in no shard and no table
    split_of = dict(zip(before.index["key"].to_pylist(), before.index["split"].to_pylist()))
    assert all(split_of.get(row["key"], row["split"]) == row["split"] for row in after.index.to_pylist())
    assert sorted(after.index["key"].to_pylist()) == sorted(samples.keys(1, 100))
    assert not any(gone.encode() in data for data in samples.tree(tmp_path / "v2").values())
    assert not verify(str(tmp_path / "v2")).problems
    samples.build(
        tmp_path / "again",
        samples.keys(1, 100),
        version="v2",
        previous=tmp_path / "v1",
        fingerprint=lambda key: f"of {key}" + (" changed" if key == changed else ""),
    )
    assert samples.tree(tmp_path / "again") == samples.tree(tmp_path / "v2")


def test_changed_scores_touch_no_shard(tmp_path):
    first = samples.build(tmp_path / "v1", samples.keys(0, 30), version="v1")
    second = samples.build(
        tmp_path / "v2", samples.keys(0, 30), version="v2", previous=tmp_path / "v1", changed={"speaker": None}
    )
    assert [shard.sha256 for shard in first.shards] == [shard.sha256 for shard in second.shards]


def test_a_release_is_self_contained_once_the_one_before_is_deleted(tmp_path):
    samples.build(tmp_path / "v1", samples.keys(0, 30), version="v1")
    samples.build(tmp_path / "v2", samples.keys(2, 30), version="v2", previous=tmp_path / "v1")
    for path in sorted((tmp_path / "v1").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    assert not verify(str(tmp_path / "v2")).problems


def test_the_same_bytes_in_an_object_store(tmp_path, bucket):
    for root in (f"{bucket}/r", str(tmp_path)):
        samples.build(f"{root}/v1", samples.keys(0, 30), version="v1", shard_clips=15)
        samples.build(f"{root}/v2", samples.keys(1, 33), version="v2", previous=f"{root}/v1", shard_clips=15)
        assert not verify(f"{root}/v2", workers=2).problems
    store = Store(f"{bucket}/r/v2")
    assert {name: store.read_bytes(name) for name in store.walk()} == samples.tree(tmp_path / "v2")


def test_a_broken_clip_is_rejected_with_its_reason(tmp_path):
    clips = samples.keys(0, 30)
    dropped = pa.Table.from_pylist(
        [{"key": "other", "verdict": "dropped", "reasons": ["static"]}], schema=REJECTED_SCHEMA
    )
    manifest = samples.build(tmp_path, clips, broken=clips[3:5], rejected=[dropped])
    found = {row["key"]: row for row in pq.read_table(tmp_path / "rejected").to_pylist()}
    assert set(found) == {*clips[3:5], "other"}
    assert found[clips[3]]["verdict"] == "broken" and found[clips[3]]["reasons"] == ["its source is gone"]
    assert found[clips[3]]["source"] == samples.source_of(clips[3])
    assert manifest.clips == 28 and manifest.rejected == {"broken": 2, "dropped": 1}
    assert not verify(str(tmp_path)).problems


def test_a_shard_without_any_sound_clip_is_not_there(tmp_path):
    clips = samples.keys(0, 30)
    train = sorted(clips)[:16]
    manifest = samples.build(
        tmp_path, clips, splits=["train" if key in train else "val" for key in clips], broken=train[:8]
    )
    assert [shard.path for shard in manifest.shards_of("train")] == ["media/train-000001.tar"]
    assert not verify(str(tmp_path)).problems
    with pytest.raises(ReleaseError, match="none of the clips of split val could be made"):
        samples.build(
            tmp_path / "r",
            clips,
            splits=["train" if key in train else "val" for key in clips],
            broken=[key for key in clips if key not in train],
        )


def test_a_release_over_an_existing_one(tmp_path):
    samples.build(tmp_path / "v1", samples.keys(0, 30))
    before = samples.tree(tmp_path / "v1")
    samples.build(tmp_path / "v1", samples.keys(0, 30), wait_s=1000)  # the very same is done already
    with pytest.raises(ReleaseError, match="holds release v already, of other content"):
        samples.build(tmp_path / "v1", samples.keys(0, 31))
    assert samples.tree(tmp_path / "v1") == before
    half = tmp_path / "v1" / "latents" / "small" / ".train-000000.tar.0123abcd"
    half.parent.mkdir(parents=True)
    half.write_text("somebody encodes it")
    samples.build(tmp_path / "v1", samples.keys(0, 30))
    assert half.exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("mine")
    with pytest.raises(ReleaseError, match="not empty and not a release"):
        samples.build(tmp_path / "other", samples.keys(0, 30))


def test_an_unfinished_build_of_other_content_is_not_continued(tmp_path):
    clips = samples.keys(0, 30)
    with pytest.raises(TypeError):
        samples.build(tmp_path, clips, wait_s="never")  # dies in the first shard
    with pytest.raises(ReleaseError, match="unfinished build of other content"):
        samples.build(tmp_path, samples.keys(0, 31))
    samples.build(tmp_path, clips)
    assert not verify(str(tmp_path)).problems


def _on_a_full_disk(root: str, clips: list[str]) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    try:
        samples.build(root, clips)
    except OSError:
        raise SystemExit(3) from None


def test_a_full_disk(tmp_path):
    clips = samples.keys(0, 40)
    samples.build(tmp_path / "undisturbed", clips)
    process = FORKS.Process(target=_on_a_full_disk, args=(str(tmp_path / "r"), clips))
    process.start()
    process.join()
    assert process.exitcode == 3
    assert not list((tmp_path / "r" / "media").iterdir())  # nothing half-written
    samples.build(tmp_path / "r", clips)
    assert samples.tree(tmp_path / "r") == samples.tree(tmp_path / "undisturbed")


@pytest.mark.parametrize("key", ["a.b", "a/b", "../a", "", "ä", "a" * 65])
def test_a_key_that_cannot_name_files(tmp_path, key):
    with pytest.raises(ValueError, match="cannot name files"):
        samples.build(tmp_path, [*samples.keys(0, 20), key], splits=["train"] * 20 + ["val"])
    assert not list(tmp_path.iterdir())


def test_duplicate_clips(tmp_path):
    with pytest.raises(ValueError, match="stand twice in the input"):
        samples.build(tmp_path, [*samples.keys(0, 20), samples.keys(3, 4)[0]])


def test_an_empty_split(tmp_path):
    with pytest.raises(ValueError, match="split val would be empty"):
        samples.build(tmp_path, samples.keys(0, 20), splits=["train"] * 20)


def test_a_row_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(samples, "rows", lambda of, **_: pa.table({"key": list(of)[:-1]}))
    with pytest.raises(ReleaseError, match="no row for the clips"):
        samples.build(tmp_path, samples.keys(0, 20))


def test_a_previous_release_that_is_none(tmp_path):
    (tmp_path / "v1").mkdir()
    with pytest.raises(ManifestError, match="not a release"):
        samples.build(tmp_path / "v2", samples.keys(0, 20), previous=tmp_path / "v1")


def test_a_damaged_previous_shard_is_not_carried_on(tmp_path):
    manifest = samples.build(tmp_path / "v1", samples.keys(0, 40), version="v1")
    path = tmp_path / "v1" / manifest.shards[0].path
    data = bytearray(path.read_bytes())
    data[2000] ^= 1
    path.write_bytes(data)
    gone = read_manifest(Store(str(tmp_path / "v1"))).shards[0].last  # so that its shard has to be written again
    with pytest.raises(ValueError, match="have changed since they were written"):
        samples.build(
            tmp_path / "v2", [k for k in samples.keys(0, 40) if k != gone], version="v2", previous=tmp_path / "v1"
        )


def test_what_stands_in_the_shards(tmp_path):
    manifest = samples.build(tmp_path, samples.keys(0, 30))
    for shard in manifest.shards:
        with tarfile.open(tmp_path / shard.path) as tar:
            members = tar.getmembers()
        assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in members} == {(0, 0, 0, "", 0o644)}
        order = [name.name.partition(".")[2] for name in members]
        assert order == ["mp4", "wav", "ref0.wav", "ref1.wav", "json"] * shard.clips
        with tarfile.open(tmp_path / shard.path) as tar:
            content = json.load(tar.extractfile(members[4]))
        assert content["split"] == shard.split and content["language"] == "en" and content["frames"] == 48
    tables = duckdb.sql(f"SELECT key, take FROM '{tmp_path}/refs/*.parquet'").fetchall()
    assert sorted(tables) == sorted((key, take) for key in samples.keys(0, 30) for take in (0, 1))


@settings(max_examples=6, deadline=None)
@given(st.data())
def test_any_history_keeps_exactly_its_clips(tmp_path_factory, data):
    """Versions built one over another: each holds its clips once, in the splits that they had."""
    root = tmp_path_factory.mktemp("history")
    everything, previous, splits = samples.keys(0, 24), None, {}
    for number in range(2):
        # one clip of each split stays, or a version could have none of it
        some = data.draw(st.sets(st.sampled_from(everything[2:])))
        clips = sorted({*everything[:2], *some})
        for key in clips:
            splits.setdefault(
                key,
                {everything[0]: "train", everything[1]: "val"}.get(key) or data.draw(st.sampled_from(["train", "val"])),
            )
        versions = {key: data.draw(st.integers(0, 1)) for key in clips}
        samples.build(
            root / f"v{number}",
            clips,
            splits=[splits[key] for key in clips],
            previous=previous,
            version=f"v{number}",
            fingerprint=lambda key, versions=versions: f"{key} {versions[key]}",
            shard_clips=5,
        )
        index = Previous.open(str(root / f"v{number}")).index
        assert dict(zip(index["key"].to_pylist(), index["split"].to_pylist())) == {key: splits[key] for key in clips}
        found = verify(str(root / f"v{number}")).problems
        # this generator ignores sources
        assert not [problem for problem in found if "source" not in problem]
        previous = root / f"v{number}"
