"""Properties of the order: every sample once an epoch, whatever the ranks and workers; resumption anywhere."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unitalking_data.batches import BatchOrder


@st.composite
def splits(draw):
    """(bucket_of, shard_of) of a small split: shards of any sizes, buckets without gaps."""
    sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=8))
    shard_of = np.repeat(np.arange(len(sizes)), sizes)
    buckets = draw(st.integers(1, min(4, len(shard_of))))
    rest = draw(st.lists(st.integers(0, buckets - 1), min_size=len(shard_of), max_size=len(shard_of)))
    return np.array([*range(buckets), *rest[buckets:]]), shard_of


small = settings(deadline=None, max_examples=50)
orders = {"seed": st.integers(0, 2**40), "window": st.integers(1, 10)}


def drawn(order, steps=None):
    """[(epoch, sample)] of the whole order or of its first steps."""
    batches = (order[step] for step in range(len(order) if steps is None else steps))
    return [pair for draws in batches for pair in zip(draws.epochs.tolist(), draws.samples.tolist())]


@small
@given(splits(), st.integers(1, 12), st.integers(1, 4), st.fixed_dictionaries(orders))
def test_a_finite_order_draws_every_sample_once_an_epoch(split, batch, epochs, how):
    order = BatchOrder(*split, batch=batch, epochs=epochs, **how)
    everything = [(epoch, sample) for epoch in range(epochs) for sample in range(len(split[0]))]
    assert sorted(drawn(order)) == everything
    with pytest.raises(IndexError):
        order[len(order)]


@small
@given(splits(), st.integers(1, 12), st.integers(1, 200), st.fixed_dictionaries(orders))
def test_an_endless_order_never_repeats_and_never_falls_behind(split, batch, steps, how):
    pairs = drawn(BatchOrder(*split, batch=batch, **how), steps)
    assert len(pairs) == len(set(pairs)) == steps * batch
    # of each bucket, an epoch begins only when the one before is drawn whole
    for bucket in np.unique(split[0]):
        own = [pair for pair in pairs if split[0][pair[1]] == bucket]
        epochs = [epoch for epoch, _ in own]
        size = int((split[0] == bucket).sum())
        assert epochs == sorted(epochs) == [place // size for place in range(len(own))]


@small
@given(splits(), st.integers(1, 12), st.fixed_dictionaries(orders))
def test_batches_are_full_and_of_one_bucket(split, batch, how):
    order = BatchOrder(*split, batch=batch, **how)
    for draws in (order[step] for step in range(30)):
        assert len(draws.samples) == batch
        assert set(split[0][draws.samples]) == {draws.bucket}


@small
@given(splits(), st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.fixed_dictionaries(orders))
def test_ranks_share_the_batches_evenly(split, world, each, steps, how):
    order = BatchOrder(*split, batch=world * each, **how)
    for step in range(steps):
        parts = [order[step].part(rank, world) for rank in range(world)]
        assert [len(part.samples) for part in parts] == [each] * world
        together = np.stack([part.samples for part in parts], 1).ravel()
        assert together.tolist() == order[step].samples.tolist()


@small
@given(
    splits(),
    st.integers(1, 9),
    st.integers(0, 40),
    st.sampled_from([None, 3]),
    st.fixed_dictionaries(orders),
    st.data(),
)
def test_a_resumed_order_is_the_rest_of_the_first(split, batch, stop, epochs, how, data):
    whole = BatchOrder(*split, batch=batch, epochs=epochs, **how)
    length = 60 if epochs is None else len(whole)
    stop = min(stop, length)
    consumed = np.zeros(len(whole.sizes), np.int64)
    for draws in islice((whole[step] for step in range(length)), stop):
        consumed[draws.bucket] += len(draws.samples)
    rest = BatchOrder(*split, batch=batch, epochs=epochs, consumed=consumed, **how)
    assert drawn(rest, length - stop) == [pair for step in range(stop, length) for pair in one(whole, step)]
    # with another batch the grouping changes, but not what has been drawn
    other = BatchOrder(*split, batch=data.draw(st.integers(1, 9)), epochs=3, consumed=consumed, **how)
    if epochs == 3:
        seen = [pair for step in range(stop) for pair in one(whole, step)]
        assert sorted(seen + drawn(other)) == sorted((e, s) for e in range(3) for s in range(len(split[0])))


def one(order, step):
    draws = order[step]
    return list(zip(draws.epochs.tolist(), draws.samples.tolist()))


def test_steps_may_be_asked_for_in_any_order():
    order = BatchOrder(np.arange(40) % 3, np.arange(40) // 10, batch=4, seed=1, window=2)
    forwards = [one(order, step) for step in range(50)]
    assert [one(order, step) for step in reversed(range(50))] == forwards[::-1]


def test_a_shard_is_in_use_for_about_a_window():
    """What a cache must hold: no sample is more than ``window`` shards away from its neighbours."""
    shards, each, window = 64, 50, 8
    shard_of = np.repeat(np.arange(shards), each)
    order = BatchOrder(np.zeros(shards * each, int), shard_of, batch=1, seed=3, window=window, epochs=1)
    sequence = shard_of[[order[step].samples[0] for step in range(len(order))]]
    first = {shard: int(np.argmax(sequence == shard)) for shard in range(shards)}
    last = {shard: len(sequence) - 1 - int(np.argmax(sequence[::-1] == shard)) for shard in range(shards)}
    in_use = [sum(first[s] <= place <= last[s] for s in range(shards)) for place in range(len(sequence))]
    assert max(in_use) <= window + 2
    assert np.mean(in_use) > window * 0.6


def test_the_shuffle_mixes_evenly_and_differs_by_epoch_and_seed():
    def places(seed, epoch):
        order = BatchOrder(np.zeros(60, int), np.repeat(np.arange(6), 10), batch=60, seed=seed, window=6)
        return np.argsort(order[epoch].samples)

    assert not np.array_equal(places(0, 0), places(0, 1)) and not np.array_equal(places(0, 0), places(1, 0))
    mean = np.mean([places(seed, 0) for seed in range(400)], 0)
    # of 60 places the mean is 29.5, its deviation over 400 draws 0.87
    assert np.abs(mean - 29.5).max() < 5 * 0.87


def test_unshuffled_epochs_keep_the_samples_order():
    order = BatchOrder(np.zeros(5, int), np.array([0, 0, 0, 1, 1]), batch=2, seed=0, window=1, shuffled=False, epochs=2)
    assert drawn(order) == [(e, s) for e in range(2) for s in range(5)]


def test_nothing_to_draw_from_is_an_error():
    empty = np.zeros(0, int)
    with pytest.raises(ValueError, match="no samples"):
        BatchOrder(empty, empty, batch=1, seed=0, window=1)
    with pytest.raises(ValueError, match="batch of 0"):
        BatchOrder(np.zeros(1, int), np.zeros(1, int), batch=0, seed=0, window=1)


def test_the_order_is_the_same_on_every_machine_and_version():
    order = BatchOrder(np.zeros(12, int), np.repeat(np.arange(4), 3), batch=12, seed=7, window=2)
    assert order[0].samples.tolist() == [1, 0, 3, 2, 5, 4, 6, 9, 7, 10, 8, 11]
