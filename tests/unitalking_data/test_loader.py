"""The loader on whole releases: what a run sees, where it goes on, what it refuses."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from tests.conftest import REPOSITORY
from tests.unitalking_data.releases import CLIPS, write_release
from unitalking_data.buckets import Bucket, Buckets
from unitalking_data.dataset import ClipDataset
from unitalking_data.loader import ClipLoader

GRID = Buckets(durations_s=(2, 4), aspects=(1, 2))


def keys(batches):
    return [[sample["key"] for sample in batch.samples] for batch in batches]


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


def test_a_fault_in_a_worker_has_the_message_of_the_fault(tmp_path):
    write_release(str(tmp_path), {"train": [7, 3, 9]})
    clips = ClipDataset(tmp_path, "train")
    (tmp_path / "media/train-000002.tar").unlink()
    with pytest.raises(FileNotFoundError, match=r"^shard media/train-000002\.tar is missing"):
        list(ClipLoader(clips, batch=2, epochs=1, workers=2))


def test_a_program_may_end_in_the_middle_of_an_epoch(release):
    """With readers at work: they ignore a first signal, and must not keep it waiting for ever."""
    program = (
        "from unitalking_data import ClipDataset, ClipLoader\n"
        f"batches = iter(ClipLoader(ClipDataset({str(release)!r}, 'train'), batch=2, workers=2))\n"
        "print(len(next(batches).samples))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, timeout=100)
    assert done.returncode == 0 and done.stdout.strip() == b"2", done.stderr


def test_the_state_is_plain_data(clips):
    state = ClipLoader(clips, batch=4, buckets=GRID).state_dict()
    assert json.loads(json.dumps(state)) == state
