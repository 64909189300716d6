"""The dataset on whole releases: what a clip holds, and what a fault says."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unitalking_data.releases import CLIPS, SPLITS, finish, write_release
from unitalking_data.batches import BatchOrder
from unitalking_data.dataset import ClipDataset
from unitalking_data.decoders import DECODERS
from unitalking_data.manifest import MANIFEST, ManifestError
from unitalking_data.shard import ShardError
from unitalking_data.storage import Store


def test_a_clip_holds_its_members_its_prompt_and_one_take(clips):
    assert len(clips) == CLIPS
    clip = clips[8]
    assert clip["key"] == "train_0008"
    assert json.loads(clip["json"]) == {"key": "train_0008", "number": 8}
    assert set(clip) == {"key", "epoch", "take", "prompt", "prompt_format", "mp4", "wav", "json", "ref.wav"}
    assert clip["ref.wav"] == f"train_0008 take {clip['take']}".encode()
    bare = clips[9]
    assert bare["take"] is None and "ref.wav" not in bare
    with pytest.raises(IndexError):
        clips[CLIPS]
    assert [clip["key"] for clip in clips] == [f"train_{n:04}" for n in range(CLIPS)]


def test_prompts_and_takes_are_drawn_anew_each_epoch(clips):
    prompts = Counter(clips.clip(8, epoch)["prompt"] for epoch in range(60))
    assert set(prompts) == {
        "A person in a blue room, number 8. Someone says: <S>hello 8<E> Audio: A voice, number 8.",
        "Person 8. Someone says: <S>hello 8<E> Audio: A voice, number 8.",
        "Person 8 says <S>hello 8<E>.",
    }
    assert min(prompts.values()) >= 8
    assert {clips.clip(8, epoch)["take"] for epoch in range(20)} == {0, 1, 2}
    assert clips.clip(8, 3) == clips.clip(8, 3)
    clips.set_epoch(3)
    assert clips[8] == clips.clip(8, 3)
    clips.set_epoch(0)


def test_members_decoders_and_columns(release):
    clips = ClipDataset(
        release, "train", members=["json", "ref.wav"], decoders={"json": json.loads}, prompts=None, columns=["licence"]
    )
    assert clips[3] == {"key": "train_0003", "epoch": 0, "take": None, "json": {"key": "train_0003", "number": 3}} | {
        "licence": "CC0-1.0"
    }
    assert clips[4]["ref.wav"].startswith(b"train_0004")
    unknown = ClipDataset(release, "train", members=["wav"], prompts=None, columns=["mood"])[4]
    assert unknown["mood"] is None


def test_latents_are_read_with_the_captions_of_the_release(release):
    clip = ClipDataset(release, "train", latents="tiny", decoders=DECODERS)[8]
    assert np.array_equal(clip["video.npy"], np.full((2, 3), 8, np.float16))
    assert clip["take"] == 0 and clip["ref.audio.npy"].shape == (2, 3)
    assert "hello 8" in clip["prompt"]


def test_a_release_without_captions_has_empty_prompts(tmp_path):
    write_release(str(tmp_path), {"train": [2]}, captions=False)
    clip = ClipDataset(tmp_path, "train")[1]
    assert clip["prompt"] == "" and clip["prompt_format"] is None


class TestFaults:
    """Every error names the shard (or the file) at fault."""

    @pytest.fixture
    def root(self, tmp_path):
        write_release(str(tmp_path), SPLITS | {"empty": []}, encoder="tiny")
        return tmp_path

    def test_missing_shard(self, root):
        (root / "media/train-000002.tar").unlink()
        with pytest.raises(FileNotFoundError, match=r"shard media/train-000002\.tar is missing"):
            ClipDataset(root, "train")

    def test_shard_lost_while_reading(self, root):
        clips = ClipDataset(root, "train")
        (root / "media/train-000002.tar").unlink()
        assert clips[9]["key"] == "train_0009"
        with pytest.raises(FileNotFoundError, match=r"shard media/train-000002\.tar is missing"):
            clips[10]

    def test_cut_short(self, root):
        path = root / "media/train-000001.tar"
        clips = ClipDataset(root, "train")
        path.write_bytes(path.read_bytes()[:2000])
        with pytest.raises(ShardError, match=r"shard media/train-000001\.tar .* has 2,000 bytes, the manifest says"):
            clips[7]
        with pytest.raises(ShardError, match=r"shard media/train-000001\.tar .* has 2,000 bytes, the manifest says"):
            ClipDataset(root, "train")

    @pytest.mark.parametrize("at", [300, 700, 1500])
    def test_flipped_byte(self, root, at):
        path = root / "media/train-000000.tar"
        data = bytearray(path.read_bytes())
        data[at] ^= 4
        path.write_bytes(data)
        with pytest.raises(ShardError, match=r"shard media/train-000000\.tar .* is damaged"):
            ClipDataset(root, "train")[0]

    def test_missing_member(self, root):
        clips = ClipDataset(root, "train", members=["mp4", "flac"])
        with pytest.raises(ShardError, match=r"shard media/train-000000\.tar: clip train_0002 has no member .*\.flac"):
            clips[2]

    def test_undecodable_member(self, root):
        clips = ClipDataset(root, "train", decoders=DECODERS)
        with pytest.raises(ShardError, match=r"shard media/train-000000\.tar: member train_0002\.mp4: no video"):
            clips[2]

    @pytest.mark.parametrize("folder", ["", "latents/tiny"])
    def test_manifest_of_another_version(self, root, folder):
        path = root / folder / MANIFEST
        path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 2'))
        with pytest.raises(ManifestError, match=r"manifest\.json: schema version 2, this code reads version 1"):
            ClipDataset(root, "train", latents=folder.partition("/")[2] or None)

    def test_table_of_another_version(self, root):
        for name, call in {
            "media/train.index.parquet": lambda: ClipDataset(root, "train"),
            "meta/part-000000.parquet": lambda: ClipDataset(root, "train", columns=["licence"])[0],
        }.items():
            table = pq.read_table(root / name)
            intact = (root / name).read_bytes()
            pq.write_table(table.replace_schema_metadata({"schema_version": "0"}), root / name)
            with pytest.raises(ValueError, match=rf"{name}: schema version 0, this code reads"):
                call()
            (root / name).write_bytes(intact)

    def test_no_release_no_split_no_clips(self, root, tmp_path):
        with pytest.raises(ManifestError, match="not a release"):
            ClipDataset(tmp_path / "nothing", "train")
        with pytest.raises(ValueError, match="has no split 'test'; it has empty, train, val"):
            ClipDataset(root, "test")
        with pytest.raises(ValueError, match=r"split 'empty' .* has no clips"):
            ClipDataset(root, "empty")
        with pytest.raises(ManifestError, match=r"no finished latents 'large', but tiny: python -m train\.encode"):
            ClipDataset(root, "train", latents="large")

    def test_latents_of_another_release(self, root):
        path = root / MANIFEST
        path.write_text(path.read_text().replace('"build": "build"', '"build": "other"'))
        with pytest.raises(ManifestError, match="latents/tiny was made of another release"):
            ClipDataset(root, "train", latents="tiny")

    def test_index_and_captions_that_do_not_belong(self, root):
        clips = ClipDataset(root, "train")
        (root / "meta/part-000000.parquet").rename(root / "meta/part-000001.parquet")
        assert clips[12]["prompt"]
        with pytest.raises(ManifestError, match=r"part-000000\.parquet is missing"):
            clips[0]
        with pytest.raises(ManifestError, match=r"part-000001\.parquet has no row for clip train_0007 .* train-000001"):
            clips[7]
        (root / "media/val.index.parquet").rename(root / "media/train.index.parquet")
        with pytest.raises(ManifestError, match=r"train\.index\.parquet does not list the shards"):
            ClipDataset(root, "train")
        (root / "media/train.index.parquet").write_bytes(b"PAR1 no")
        with pytest.raises(ManifestError, match=r"train\.index\.parquet, .* cannot be read"):
            ClipDataset(root, "train")


def test_a_large_release_opens_by_its_manifest_and_index_alone(tmp_path):
    """Neither a tar nor a meta part is read before its first clip is, however many there are."""
    shards, each = 400, 50
    manifest = write_release(str(tmp_path), {"train": [each]})
    index = pq.read_table(tmp_path / "media/train.index.parquet")
    tables, entries = [], []
    for number in range(shards):
        keys = [f"clip-{number:04}-{n:03}" for n in range(each)]
        columns = {"key": pa.array(keys), "shard": pa.array([number] * each, pa.int32())}
        tables.append(pa.table([columns.get(name, index[name]) for name in index.column_names], index.schema))
        entries.append(replace(manifest.shards[0], path=f"media/train-{number:06}.tar", part=f"meta/{number}.parquet"))
        with (tmp_path / entries[-1].path).open("wb") as stream:
            stream.truncate(entries[-1].bytes)  # a hole
    pq.write_table(pa.concat_tables(tables), tmp_path / "media/train.index.parquet")
    totals = replace(manifest.splits["train"], clips=shards * each, shards=shards)
    finish(Store(tmp_path), replace(manifest, shards=entries, splits={"train": totals}))
    shutil.rmtree(tmp_path / "meta")
    clips = ClipDataset(tmp_path, "train")
    assert len(clips) == shards * each
    order = BatchOrder(np.zeros(len(clips), int), clips.index.shard, batch=500, seed=0, window=16, epochs=1)
    drawn = np.concatenate([order[step].samples for step in range(len(order))])
    assert np.array_equal(np.sort(drawn), np.arange(shards * each))
    with pytest.raises(ShardError, match=r"shard media/train-000399\.tar .* is damaged"):
        clips[len(clips) - 1]
