"""The loader on whole releases: what a clip holds, what a run sees, what a fault says."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from corpus.batches import BatchOrder
from corpus.buckets import Bucket, Buckets
from corpus.decoders import DECODERS
from corpus.loader import ClipDataset, ClipLoader
from corpus.manifest import MANIFEST, ManifestError
from corpus.shard import ShardError
from corpus.storage import Store
from tests.conftest import REPOSITORY
from tests.corpus.releases import finish, write_release

SPLITS = {"train": [7, 3, 9, 5, 6], "val": [4]}
CLIPS = 30
GRID = Buckets(durations_s=(2, 4), aspects=(1, 2))


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    root = tmp_path_factory.mktemp("release")
    write_release(str(root), SPLITS, encoder="tiny")
    return root


@pytest.fixture(scope="module")
def clips(release):
    return ClipDataset(release, "train", seed=5)


def keys(batches):
    return [[sample["key"] for sample in batch.samples] for batch in batches]


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


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 4), st.integers(0, 2), st.integers(1, 3), st.integers(1, 2), st.booleans(), st.data())
def test_every_clip_once_an_epoch_whatever_the_ranks_and_workers(clips, world, workers, each, epochs, grid, data):
    workers = workers if data.draw(st.integers(0, 3)) == 0 else 0  # processes are dear
    loaders = [
        ClipLoader(
            clips,
            batch=world * each,
            rank=rank,
            world=world,
            workers=workers,
            epochs=epochs,
            buckets=GRID if grid else Buckets(),
        )
        for rank in range(world)
    ]
    drawn = [(sample["epoch"], sample["key"]) for loader in loaders for batch in loader for sample in batch.samples]
    assert sorted(drawn) == [(epoch, f"train_{n:04}") for epoch in range(epochs) for n in range(CLIPS)]
    assert all(len(loader) == 0 and not list(loader) for loader in loaders)


def run(clips, world, steps, state=None, workers=0):
    """Keys of the global batches of some steps, put together from the ranks, and the state after them."""
    ranks = []
    for rank in range(world):
        loader = ClipLoader(clips, batch=12, seed=3, rank=rank, world=world, workers=workers, buckets=GRID, window=2)
        if state:
            loader.load_state_dict(state)
        ranks.append([batch for _, batch in zip(range(steps), loader)])
    batches = []
    for parts in zip(*ranks):
        assert len({part.bucket for part in parts}) == 1
        columns = [[(s["epoch"], s["key"], s["prompt"], s["take"]) for s in part.samples] for part in parts]
        batches.append([sample for row in zip(*columns) for sample in row])
    return batches, json.loads(json.dumps(loader.state_dict()))


@settings(max_examples=12, deadline=None)
@given(st.sampled_from([1, 2, 3, 4, 6, 12]), st.sampled_from([1, 2, 3, 4, 6, 12]), st.integers(0, 9))
def test_a_resume_continues_the_very_sequence_on_another_world_size(clips, before, after, stop):
    whole, _ = run(clips, 1, 14)
    first, state = run(clips, before, stop)
    assert state["samples"] == 12 * stop
    second, _ = run(clips, after, 14 - stop, state)
    assert first + second == whole


def test_the_state_counts_what_came_out_not_what_workers_have_read_ahead(clips):
    whole, _ = run(clips, 1, 9)
    first, state = run(clips, 2, 4, workers=2)
    second, _ = run(clips, 3, 5, state, workers=2)
    assert first + second == whole


def test_another_global_batch_goes_on_with_what_is_left(clips):
    before = ClipLoader(clips, batch=4, epochs=1, buckets=GRID)
    seen = [key for _, batch in zip(range(3), before) for key in keys([batch])[0]]
    after = ClipLoader(clips, batch=10, rank=0, world=1, epochs=1, buckets=GRID)
    after.load_state_dict(before.state_dict())
    assert sorted(seen + [key for batch in keys(after) for key in batch]) == [f"train_{n:04}" for n in range(CLIPS)]


def test_batches_are_of_one_bucket(clips):
    loader = ClipLoader(clips, batch=4, buckets=GRID)
    assert set(loader.buckets) == {Bucket(d, a) for d in (2, 4) for a in (1, 2)}
    for _, batch in zip(range(20), loader):
        numbers = [int(sample["key"].removeprefix("train_")) for sample in batch.samples]
        assert {4 if 2 + number % 5 >= 4 else 2 for number in numbers} == {batch.bucket.duration_s}
        assert {1 + number % 2 for number in numbers} == {batch.bucket.aspect}


def test_foreign_data_loaders_split_it_by_batch(clips):
    own = keys(ClipLoader(clips, batch=4, epochs=1))
    assert keys(DataLoader(ClipLoader(clips, batch=4, epochs=1), batch_size=None, num_workers=2)) == own
    mapped = DataLoader(clips, batch_size=5, num_workers=2, collate_fn=list)
    assert [sample["key"] for batch in mapped for sample in batch] == [f"train_{n:04}" for n in range(CLIPS)]


def test_collate_and_spawned_workers(clips):
    loader = ClipLoader(clips, batch=6, epochs=1, shuffled=False, collate=len)
    assert [batch.samples for batch in loader] == [6] * 5
    copy = pickle.loads(pickle.dumps(clips))
    assert copy[4] == clips[4]
    spawned = DataLoader(
        clips, batch_size=None, num_workers=1, multiprocessing_context=multiprocessing.get_context("spawn")
    )
    assert next(iter(spawned)) == clips[0]


def test_what_cannot_be_split_or_resumed_is_an_error(release, clips):
    with pytest.raises(ValueError, match="batch of 5 cannot be split evenly for rank 0 of 2"):
        ClipLoader(clips, batch=5, rank=0, world=2)
    with pytest.raises(ValueError, match="batch of 4 cannot be split evenly for rank 2 of 2"):
        ClipLoader(clips, batch=4, rank=2, world=2)
    with pytest.raises(ValueError, match=r"shorter than the shortest bucket, 5 s"):
        ClipLoader(clips, batch=4, buckets=Buckets(durations_s=(5,)))
    state = ClipLoader(clips, batch=4, seed=1).state_dict()
    others = {
        "seed": ClipLoader(clips, batch=4, seed=2),
        "buckets": ClipLoader(clips, batch=4, seed=1, buckets=GRID),
        "window": ClipLoader(clips, batch=4, seed=1, window=3),
        "split": ClipLoader(ClipDataset(release, "val", seed=5), batch=4, seed=1),
        "draw_seed": ClipLoader(ClipDataset(release, "train", seed=6), batch=4, seed=1),
        "release": ClipLoader(ClipDataset(release, "train", seed=5, latents="tiny"), batch=4, seed=1),
    }
    for name, loader in others.items():
        with pytest.raises(ValueError, match=f"state has ({name}|buckets)"):
            loader.load_state_dict(state)
    with pytest.raises(TypeError):
        len(ClipLoader(clips, batch=4))


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
        with pytest.raises(FileNotFoundError, match=r"shard media/train-000002\.tar is missing"):
            list(ClipLoader(clips, batch=2, epochs=1, workers=2))

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

    def test_a_program_may_end_in_the_middle_of_an_epoch(self, root):
        """With readers at work: they ignore a first signal, and must not keep it waiting for ever."""
        program = (
            "from corpus.loader import ClipDataset, ClipLoader\n"
            f"batches = iter(ClipLoader(ClipDataset({str(root)!r}, 'train'), batch=2, workers=2))\n"
            "print(len(next(batches).samples))"
        )
        done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, timeout=100)
        assert done.returncode == 0 and done.stdout.strip() == b"2", done.stderr

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


def test_it_needs_neither_ray_nor_a_model():
    code = "import sys, corpus.loader; print({'ray', 'model', 'engine', 'curation', 'diffusers'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_the_state_is_plain_data(clips):
    state = ClipLoader(clips, batch=4, buckets=GRID).state_dict()
    assert json.loads(json.dumps(state)) == state
