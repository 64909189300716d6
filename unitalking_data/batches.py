"""Which samples make which batch: a function of (seed, step) and nothing else.

Every bucket is an endless stream, its epochs laid end to end, and is cut into batches of equal size. The last batch of
an epoch is filled up with the first samples of the next. So no batch is short and no sample is dropped, padded or
drawn twice. The only state is how many samples of each stream have been drawn. Batches of different buckets follow one
another in the order in which a reader of the epoch would complete them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unitalking_data.permutation import shuffle


@dataclass(frozen=True, slots=True)
class BatchDraw:
    """One global batch, or a rank's part of it.

    Attributes:
        bucket: what all its samples share.
        samples: int64 ``[batch]``, indexes into the split.
        epochs: int64 ``[batch]``, the epoch that each draw belongs to.
    """

    bucket: int
    samples: np.ndarray
    epochs: np.ndarray

    def part(self, rank: int, world: int) -> BatchDraw:
        """Every ``world``-th draw, beginning with the ``rank``-th."""
        return BatchDraw(self.bucket, self.samples[rank::world], self.epochs[rank::world])


@dataclass(frozen=True, slots=True)
class _EpochOrder:
    """What an epoch completes: bucket and number within it of every batch, and each bucket's samples in order."""

    buckets: np.ndarray
    numbers: np.ndarray
    sequences: list[np.ndarray]


class BatchOrder:
    """The sequence of global batches.

    Args:
        bucket_of: integers ``[n]`` in 0…buckets−1, the bucket of each sample.
        shard_of: integers ``[n]``, ascending, the shard of each sample.
        batch: samples in a global batch, over all ranks.
        seed: of the permutations.
        window: shards mixed by the shuffle.
        shuffled: False takes every epoch in the order of the samples.
        epochs: end after so many epochs, each sample drawn exactly that often; the rest of each bucket then makes a
            last, short batch. None is endless.
        consumed: int64 ``[buckets]``, draws of each bucket's stream to skip: where another order stopped.

    Raises:
        ValueError: no samples, or a batch of none.
    """

    def __init__(
        self,
        bucket_of: np.ndarray,
        shard_of: np.ndarray,
        *,
        batch: int,
        seed: int,
        window: int,
        shuffled: bool = True,
        epochs: int | None = None,
        consumed: np.ndarray | None = None,
    ) -> None:
        if not len(bucket_of):
            raise ValueError("there are no samples to draw from")
        if batch < 1:
            raise ValueError(f"a batch of {batch} samples; give at least 1")
        self.batch, self.epochs = batch, epochs
        self.sizes = np.bincount(bucket_of)
        self.consumed = np.zeros(len(self.sizes), np.int64) if consumed is None else consumed
        self._bucket_of, self._shard_of = bucket_of, shard_of
        self._shuffled, self._seed, self._window = shuffled, seed, window
        self._shards = int(shard_of[-1]) + 1
        self._orders: dict[int, _EpochOrder] = {}

    def __len__(self) -> int:
        """How many batches are left; raises TypeError where there is no end."""
        if self.epochs is None:
            raise TypeError("an endless order has no length")
        left = np.maximum(self.epochs * self.sizes - self.consumed, 0)
        return int((-(-left // self.batch)).sum())

    def __getitem__(self, step: int) -> BatchDraw:
        """The batch of a step, counted from ``consumed``.

        Raises:
            IndexError: past the last epoch.
        """
        epoch = self._epoch_of(step)
        if self.epochs is not None and epoch >= self.epochs:
            return self._short(step - self._completed(self.epochs), self.epochs)
        order = self._order_of(epoch)
        place = step - self._completed(epoch)
        bucket = int(order.buckets[place])
        begin = int(self.consumed[bucket]) + int(order.numbers[place]) * self.batch
        return self._draw(bucket, begin, begin + self.batch)

    def _completed(self, epochs: int) -> int:
        """Batches that end within the first ``epochs`` epochs."""
        return int(self._completed_of_each(epochs).sum())

    def _completed_of_each(self, epochs: int) -> np.ndarray:
        return np.maximum(epochs * self.sizes - self.consumed, 0) // self.batch

    def _epoch_of(self, step: int) -> int:
        """The epoch in which the batch of a step is completed."""
        low, high = 0, 1
        while self._completed(high) <= step:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            if self._completed(middle) <= step:
                low = middle
            else:
                high = middle
        return low

    def _order_of(self, epoch: int) -> _EpochOrder:
        if epoch not in self._orders:
            # a batch reaches back into the epoch before, and no further
            self._orders = {e: order for e, order in self._orders.items() if abs(e - epoch) == 1}
            self._orders[epoch] = self._make_order(epoch)
        return self._orders[epoch]

    def _make_order(self, epoch: int) -> _EpochOrder:
        order = self._shuffle(np.arange(len(self._bucket_of), dtype=np.int32), epoch)
        first, last = self._completed_of_each(epoch), self._completed_of_each(epoch + 1)
        if len(self.sizes) == 1:
            numbers = np.arange(first[0], last[0])
            return _EpochOrder(np.zeros(len(numbers), np.int32), numbers, [order])
        # places in the epoch of each bucket's samples, bucket after bucket
        places = np.split(np.argsort(self._bucket_of[order], kind="stable"), np.cumsum(self.sizes)[:-1])
        numbers_of = [np.arange(*between) for between in zip(first, last)]
        finals = [
            at[start + (number + 1) * self.batch - 1 - epoch * size]
            for at, start, number, size in zip(places, self.consumed, numbers_of, self.sizes)
        ]
        turn = np.argsort(np.concatenate(finals))
        buckets = np.repeat(np.arange(len(self.sizes), dtype=np.int32), last - first)
        return _EpochOrder(buckets[turn], np.concatenate(numbers_of)[turn], [order[at] for at in places])

    def _short(self, number: int, epochs: int) -> BatchDraw:
        """The ``number``-th of the buckets' remainders after the last of the epochs."""
        ends = epochs * self.sizes
        begins = self.consumed + self._completed_of_each(epochs) * self.batch
        bucket = int(np.flatnonzero(begins < ends)[number])
        return self._draw(bucket, int(begins[bucket]), int(ends[bucket]))

    def _draw(self, bucket: int, begin: int, end: int) -> BatchDraw:
        """A stretch of a bucket's stream, over as many epochs as it takes."""
        size = int(self.sizes[bucket])
        places = np.arange(begin, end)
        epochs, places = places // size, places % size
        samples = np.empty(len(places), np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            samples[here] = self._sequence(bucket, int(epoch))[places[here]]
        return BatchDraw(bucket, samples, epochs)

    def _sequence(self, bucket: int, epoch: int) -> np.ndarray:
        """The bucket's samples in the epoch's order."""
        if epoch in self._orders:
            return self._orders[epoch].sequences[bucket]
        return self._shuffle(np.flatnonzero(self._bucket_of == bucket), epoch)

    def _shuffle(self, samples: np.ndarray, epoch: int) -> np.ndarray:
        if not self._shuffled:
            return samples
        return shuffle(
            samples,
            self._shard_of[samples],
            total=len(self._bucket_of),
            shards=self._shards,
            window=self._window,
            seed=self._seed,
            epoch=epoch,
        )
