"""Batches of clips that are evenly split over ranks, deterministic and exactly resumable. Needs the extra ``torch``. ::

clips = ClipDataset("s3://bucket/release/v1", "train", cache="/scratch/shards", cache_bytes=500 << 30)
loader = ClipLoader(clips, batch=64, seed=1, workers=8, buckets=Buckets(durations_s=(2, 5)))
for batch in loader:
    ...
    state = loader.state_dict()  # exact, whatever the workers have read ahead
"""

from __future__ import annotations

import atexit
import re
import signal
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from unitalking_data.batches import BatchDraw, BatchOrder
from unitalking_data.buckets import Bucket, Buckets
from unitalking_data.extras import missing_extra
from unitalking_data.index import ClipIndex

try:
    import torch.distributed
    from torch.utils.data import DataLoader, IterableDataset, get_worker_info
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise missing_extra("torch", "torch", "ClipLoader") from None

STATE_VERSION = 1


class Clips(Protocol):
    """What a loader draws from: a :class:`~unitalking_data.dataset.ClipDataset`, or an object that wraps one.

    Attributes:
        index: of the clips.
        release: identity of what they are read from.
        split: of the release.
        seed: of the draws that :meth:`clip` makes.
    """

    index: ClipIndex
    release: str
    split: str
    seed: int

    def clip(self, number: int, epoch: int) -> Any:
        """Sample of clip ``number`` (0…len(index)−1) in ``epoch``."""


class ClipBatch(NamedTuple):
    """A rank's part of one global batch.

    Attributes:
        bucket: what all its clips share.
        samples: what ``collate`` made of this rank's samples; without ``collate`` the list of them.
    """

    bucket: Bucket
    samples: Any


class ClipLoader(IterableDataset):
    """Batches of one rank, iterable-style, without end or for some epochs.

    The global batches are a function of (release, seed, batch, buckets, window) and of nothing else. Rank *r* of *w*
    takes every *w*-th clip of each, and workers take turns by batch. So a run that is resumed on another number of
    ranks or workers sees the same global batches. Every clip is drawn once an epoch (:mod:`unitalking_data.batches`).

    With ``workers`` it runs its own ``torch.utils.data.DataLoader``. It can also be handed to one as a dataset
    (``batch_size=None``), which then has to keep the state itself. Iterating again continues; a finished one is empty.

    Args:
        dataset: what to draw from, mostly a :class:`~unitalking_data.dataset.ClipDataset`.
        batch: clips in a global batch, over all ranks.
        seed: of the order.
        buckets: what a batch must have in common.
        rank, world: this process among those that share each batch; of ``torch.distributed`` if not given.
        workers: processes of the dataloader; 0 reads in this one.
        epochs: end after so many; each bucket's last batch is then short where its clips do not divide evenly. None
            never ends and makes no short batches.
        shuffled: False keeps the order of the shards.
        window: shards that are mixed at a time.
        collate: makes a batch of a list of samples.
        pin_memory: copy the tensors of batches into pinned memory.
        context: start method of the workers: ``spawn`` where they use CUDA, None for the platform's default.

    Raises:
        ValueError: the batch cannot be split evenly over the ranks, or a clip fits no bucket.
    """

    def __init__(
        self,
        dataset: Clips,
        *,
        batch: int,
        seed: int = 0,
        buckets: Buckets = Buckets(),  # noqa: B008 — frozen
        rank: int | None = None,
        world: int | None = None,
        workers: int = 0,
        epochs: int | None = None,
        shuffled: bool = True,
        window: int = 16,
        collate: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
        context: str | None = None,
    ) -> None:
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        self.rank = rank if rank is not None else torch.distributed.get_rank() if distributed else 0
        self.world = world if world is not None else torch.distributed.get_world_size() if distributed else 1
        if not 0 <= self.rank < self.world or batch % self.world:
            raise ValueError(
                f"a global batch of {batch} cannot be split evenly for rank {self.rank} of {self.world}: "
                "make it a multiple of the number of ranks"
            )
        self.dataset, self.workers, self.pin_memory, self.context = dataset, workers, pin_memory, context
        self._collate, self._epochs = collate, epochs
        index = dataset.index
        self.buckets, self._bucket_of = buckets.assign(index.duration_s, index.width, index.height)
        self._order: dict[str, Any] = {"batch": batch, "seed": seed, "window": window, "shuffled": shuffled}
        self._consumed = np.zeros(len(self.buckets), np.int64)

    def __len__(self) -> int:
        """Batches that are left; raises TypeError where there is no end."""
        return len(self._rest())

    def __iter__(self) -> Iterator[ClipBatch]:
        steps = _Steps(self.dataset, self._rest(), self.rank, self.world, self._collate, self.buckets)
        results: Any = iter(steps)
        if self.workers and get_worker_info() is None:
            results = iter(
                DataLoader(
                    steps,
                    batch_size=None,
                    num_workers=self.workers,
                    pin_memory=self.pin_memory,
                    worker_init_fn=_outlive_a_signal,
                    multiprocessing_context=self.context,
                )
            )
            atexit.register(results._shutdown_workers)  # before multiprocessing waits for them after one signal
        try:
            for bucket, drawn, batch in results:
                self._consumed[bucket] += drawn
                if batch is not None:
                    yield batch
        except (ValueError, FileNotFoundError, ImportError) as error:
            if message := _message_of_worker(error):
                raise type(error)(message) from error
            raise
        finally:
            if hasattr(results, "_shutdown_workers"):
                results._shutdown_workers()
                atexit.unregister(results._shutdown_workers)

    def _rest(self) -> BatchOrder:
        return BatchOrder(
            self._bucket_of,
            self.dataset.index.shard,
            epochs=self._epochs,
            consumed=self._consumed.copy(),
            **self._order,
        )

    def state_dict(self) -> dict[str, Any]:
        """Plain data: how many samples all ranks have drawn from each bucket, up to the last batch that came out."""
        sizes = np.bincount(self._bucket_of).tolist()
        return {
            "version": STATE_VERSION,
            "release": self.dataset.release,
            "split": self.dataset.split,
            "draw_seed": self.dataset.seed,
            **{name: self._order[name] for name in ("seed", "window", "shuffled")},
            "buckets": [[b.duration_s, b.aspect, size] for b, size in zip(self.buckets, sizes)],
            "batch": self._order["batch"],
            "consumed": self._consumed.tolist(),
            "samples": int(self._consumed.sum()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where the state was taken, on any number of ranks and workers.

        With another global batch size every clip is still drawn once an epoch, but batches hold other clips.

        Raises:
            ValueError: the state is of another release, split, seed, window or grid of buckets.
        """
        mine = self.state_dict()
        for name in mine.keys() - {"consumed", "samples", "batch"}:
            if name not in state or state[name] != mine[name]:
                raise ValueError(f"the loader's state has {name} {state.get(name)!r}, this loader {mine[name]!r}")
        self._consumed = np.array(state["consumed"], np.int64)


def _message_of_worker(error: Exception) -> str:
    """The message of an exception that a worker raised, out of the traceback that ``DataLoader`` puts in its place.

    Empty for an exception of this process.
    """
    _, _, trace = str(error).partition("Original Traceback")
    return re.split(r"^[\w.]+Error: ", trace, flags=re.MULTILINE)[-1].strip()


def _outlive_a_signal(worker: int) -> None:
    """Let a worker ignore its first SIGTERM.

    A scheduler sends the signal to the whole process group. The main process answers it, and may need another batch
    before it has saved and ends. A second SIGTERM is obeyed: with it the main process ends a worker that hangs.
    """

    def ignore(number: int, frame: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, ignore)


class _Steps(IterableDataset):
    """(bucket, clips of the global batch, this rank's batch) of the steps that fall to this worker."""

    def __init__(
        self,
        dataset: Clips,
        order: BatchOrder,
        rank: int,
        world: int,
        collate: Callable[[list[Any]], Any] | None,
        buckets: list[Bucket],
    ) -> None:
        self._dataset, self._order, self._rank, self._world = dataset, order, rank, world
        self._collate, self._buckets = collate, buckets

    def __iter__(self) -> Iterator[tuple[int, int, ClipBatch | None]]:
        worker = get_worker_info()
        step, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        while True:
            try:
                draws = self._order[step]
            except IndexError:
                return
            yield draws.bucket, len(draws.samples), self._batch(draws.part(self._rank, self._world))
            step += stride

    def _batch(self, draws: BatchDraw) -> ClipBatch | None:
        """None where a short last batch has nothing for this rank."""
        if not len(draws.samples):
            return None
        samples = [self._dataset.clip(*draw) for draw in zip(draws.samples.tolist(), draws.epochs.tolist())]
        return ClipBatch(self._buckets[draws.bucket], self._collate(samples) if self._collate else samples)
