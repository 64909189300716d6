"""Read a release for training: map-style clips, and batches that are evenly split, deterministic and resumable.

Needs torch and this package; no Ray, no model. ::

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch.distributed
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from corpus.batches import BatchOrder, Draws
from corpus.buckets import Bucket, Buckets
from corpus.cache import ShardCache
from corpus.captions import MetaRows
from corpus.decoders import RAW
from corpus.index import check_shards, read_index
from corpus.manifest import SUCCESS, Manifest, ManifestError, read_manifest
from corpus.prompts import ATOMS, PromptConfig, draw_format, draw_take, render
from corpus.reading import ShardReader
from corpus.shard import ShardError, walk
from corpus.storage import Store

STATE_VERSION = 1
ATOM_COLUMNS = (*ATOMS.values(), "audio_caption", "transcript")
_TAKE = re.compile(r"ref\d+\.")  # a reference recording or its latents: ref1.wav


class ClipDataset(Dataset):
    """The clips of a split in the order of the shards, map-style.

    ``dataset[i]`` is clip *i* as a dict: ``key``; ``epoch``; ``prompt`` and ``prompt_format`` (None for a clip without
    a description); ``take``, which reference recording was drawn (None without any); the ``columns`` asked for; and its
    members by extension (``mp4``, ``wav``, ``json``, ``video.npy``…), as bytes or decoded. Of the reference takes only
    the drawn one is there, ``KEY.ref2.wav`` as ``ref.wav``. Format and take are drawn by hash of (key, epoch, seed).

    Args:
        root: a release, local folder or fsspec URL.
        split: of the release.
        latents: name of an encoder: reads ``latents/<encoder>/`` in place of ``media/``.
        members: extensions to deliver, all if None; naming ``ref.wav`` asks for the drawn take.
        decoders: by last part of the extension, for example :data:`corpus.decoders.DECODERS`; the rest stays bytes.
        prompts: how prompts are drawn and rendered; None reads no captions.
        columns: further columns of ``meta/`` to deliver.
        seed: of the draws.
        cache: folder for downloaded shards of a remote release, shared by all processes of the machine; without one
            each clip is read by a ranged request.
        cache_bytes: bound of that folder; it should hold the loader's window of shards and one a worker.

    Raises:
        ValueError: (:class:`corpus.manifest.ManifestError`, :class:`corpus.shard.ShardError` for what is damaged) no
            such split, no clips in it, no release there, another schema version, a shard of another size, no such
            latents, or latents that were made of another release.
        FileNotFoundError: a shard is missing.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        *,
        latents: str | None = None,
        members: Sequence[str] | None = None,
        decoders: Mapping[str, Callable[[bytes], Any]] = RAW,
        prompts: PromptConfig | None = PromptConfig(),  # noqa: B008 — frozen
        columns: Sequence[str] = (),
        seed: int = 0,
        cache: str | Path | None = None,
        cache_bytes: int = 100 << 30,
    ) -> None:
        release = Store(root)
        manifest = read_manifest(release)
        store, tars = _latents(release, manifest, latents) if latents else (release, manifest)
        self.split, self.seed, self.epoch = split, seed, 0
        self.release = f"{manifest.version} {manifest.build}" + (f" {latents} {tars.build}" if latents else "")
        self.index = read_index(store, tars, split)
        check_shards(store, self.index)
        self._members = None if members is None else tuple(members)
        self._decoders, self._prompts, self._columns = dict(decoders), prompts, tuple(columns)
        atoms = ATOM_COLUMNS if prompts else ()
        self._meta = MetaRows(release, manifest, [*atoms, *columns]) if atoms or columns else None
        self._reader = ShardReader(store, ShardCache(cache, cache_bytes) if cache else None)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Clip ``number`` with the prompt and take of the current epoch (:meth:`set_epoch`)."""
        return self.clip(number, self.epoch)

    def set_epoch(self, epoch: int) -> None:
        """Draw prompts and takes for this epoch from now on; workers that already run keep theirs."""
        self.epoch = epoch

    def clip(self, number: int, epoch: int) -> dict[str, Any]:
        """Clip ``number`` (0…len−1) with the prompt and take of ``epoch``.

        Raises:
            IndexError: there is no such clip.
            FileNotFoundError: its shard is missing.
            ShardError: its shard is damaged, or lacks a member that was asked for.
            ManifestError: its row in ``meta/`` is missing or of another schema version.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"clip {number} of {len(self)}")
        index, key = self.index, self.index.keys[number].as_py()
        shard = index.shards[index.shard[number]]
        run = self._reader.read(shard, int(index.offset[number]), int(index.size[number]), int(index.crc32[number]))
        places = {name: slice(at, at + size) for _, name, at, size in walk(run, f"shard {shard.path}")}
        sample = {"key": key, "epoch": epoch, "take": None}
        draw = {"key": key, "epoch": epoch, "seed": self.seed}
        if self._meta:
            row = self._meta.row(shard.split, shard.number, key)
            if self._prompts:
                form = draw_format(row, self._prompts.shares, **draw)
                sample |= {"prompt": render(row, form, self._prompts.style), "prompt_format": form}
            sample |= {name: row[name] for name in self._columns}
        takes = {name: places.pop(name) for name in list(places) if _TAKE.match(name)}
        if takes:
            chosen = draw_take(len({name.partition(".")[0] for name in takes}), **draw)
            sample["take"] = chosen
            prefix = f"ref{chosen}."
            places |= {f"ref.{name[len(prefix) :]}": at for name, at in takes.items() if name.startswith(prefix)}
        for name in places if self._members is None else self._members:
            if name in places:
                sample[name] = self._decode(name, bytes(run[places[name]]), key, shard.path)
            elif not name.startswith("ref."):
                raise ShardError(f"shard {shard.path}: clip {key} has no member {key}.{name}")
        return sample

    def _decode(self, name: str, data: bytes, key: str, shard: str) -> Any:
        decoder = self._decoders.get(name.rpartition(".")[2])
        try:
            return decoder(data) if decoder else data
        except ValueError as error:
            raise ShardError(f"shard {shard}: member {key}.{name}: {error}") from error


def _latents(release: Store, manifest: Manifest, name: str) -> tuple[Store, Manifest]:
    """A set of latents of this very release."""
    store = Store(f"{release.root.rstrip('/')}/latents/{name}")
    if not store.exists(SUCCESS):
        there = [n for n in release.folders("latents") if release.exists(f"latents/{n}/{SUCCESS}")]
        raise ManifestError(
            f"{release.root} has no finished latents {name!r}, but {', '.join(there) or 'none'}: "
            "python -m train.encode makes them"
        )
    tars = read_manifest(store)
    if tars.process.get("release") != manifest.build:
        raise ManifestError(
            f"{store.root} was made of another release than the one that stands in {release.root}: encode it again"
        )
    return store, tars


class ClipBatch(NamedTuple):
    """A rank's part of one global batch.

    Attributes:
        bucket: what all its clips share.
        samples: what ``collate`` made of them, a list of dicts without it.
    """

    bucket: Bucket
    samples: Any


class ClipLoader(IterableDataset):
    """Batches of one rank, iterable-style, for ever or for some epochs.

    The global batches are a function of (release, seed, batch, buckets, window) and of nothing else: rank *r* of *w*
    takes every *w*-th clip of each, and workers take turns by batch. So a run that is resumed on another number of
    ranks or workers sees the same global batches. Every clip is drawn once an epoch; see :mod:`corpus.batches`.

    With ``workers`` it runs its own ``torch.utils.data.DataLoader``; it can also be handed to one as a dataset
    (``batch_size=None``), which then has to keep the state itself. Iterating again continues; a finished one is empty.

    Args:
        dataset: what to draw from.
        batch: clips in a global batch, over all ranks.
        seed: of the order.
        buckets: what a batch must have in common.
        rank, world: this process among those that share each batch; of ``torch.distributed`` if not given.
        workers: reading processes; 0 reads in this one.
        epochs: end after so many; the last batches of an epoch are then short where a bucket does not divide evenly.
            None never ends and makes no short batches.
        shuffled: False keeps the order of the shards.
        window: shards that are mixed at a time.
        collate: makes a batch of a list of samples.
        pin_memory: copies tensors of batches into pinned memory.
        context: how the reading processes start: ``spawn`` where they use CUDA, None for the platform's own way.

    Raises:
        ValueError: the batch cannot be split evenly over the ranks, or a clip fits no bucket.
    """

    def __init__(
        self,
        dataset: ClipDataset,
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
        collate: Callable[[list[dict[str, Any]]], Any] | None = None,
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
        self._order = {"batch": batch, "seed": seed, "window": window, "shuffled": shuffled}
        self._consumed = np.zeros(len(self.buckets), np.int64)

    def __len__(self) -> int:
        """Batches that are left; raises TypeError where there is no end."""
        return len(self._rest())

    def __iter__(self) -> Iterator[ClipBatch]:
        steps = _Steps(self.dataset, self._rest(), self.rank, self.world, self._collate, self.buckets)
        if self.workers and get_worker_info() is None:
            reading = DataLoader(
                steps,
                batch_size=None,
                num_workers=self.workers,
                pin_memory=self.pin_memory,
                worker_init_fn=_outlive_a_signal,
                multiprocessing_context=self.context,
            )
            steps = iter(reading)
            atexit.register(steps._shutdown_workers)  # before multiprocessing waits for them after one signal
        try:
            for bucket, drawn, batch in steps:
                self._consumed[bucket] += drawn
                if batch is not None:
                    yield batch
        except (ValueError, FileNotFoundError) as error:
            if told := _told_by_worker(error):
                raise type(error)(told) from error
            raise
        finally:
            if hasattr(steps, "_shutdown_workers"):
                steps._shutdown_workers()
                atexit.unregister(steps._shutdown_workers)

    def _rest(self) -> BatchOrder:
        return BatchOrder(
            self._bucket_of,
            self.dataset.index.shard,
            epochs=self._epochs,
            consumed=self._consumed.copy(),
            **self._order,
        )

    def state_dict(self) -> dict[str, Any]:
        """Plain data: how many samples the world has drawn from each bucket up to the last batch that came out."""
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
        """Go on where the state was taken, on any number of ranks and workers.

        With another global batch every clip is still drawn once an epoch, but batches are of other clips.

        Raises:
            ValueError: the state is of another release, split, seed, window or grid of buckets.
        """
        mine = self.state_dict()
        for name in mine.keys() - {"consumed", "samples", "batch"}:
            if name not in state or state[name] != mine[name]:
                raise ValueError(f"the loader's state has {name} {state.get(name)!r}, this loader {mine[name]!r}")
        self._consumed = np.array(state["consumed"], np.int64)


def _told_by_worker(error: Exception) -> str:
    """The message of what a reading process raised, in place of the traceback that ``DataLoader`` makes of it."""
    _, _, trace = str(error).partition("Original Traceback")
    return re.split(r"^[\w.]+Error: ", trace, flags=re.MULTILINE)[-1].strip()


def _outlive_a_signal(worker: int) -> None:
    """Ignore one SIGTERM. Where a whole group of processes gets it, it is the reading one's to answer, which may need
    another batch before it can save and end; the second, by which that process ends a worker that hangs, is obeyed."""

    def ignore(number: int, frame: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, ignore)


class _Steps(IterableDataset):
    """(bucket, clips of the global batch, this rank's batch) of the steps that fall to this worker."""

    def __init__(
        self,
        dataset: ClipDataset,
        order: BatchOrder,
        rank: int,
        world: int,
        collate: Callable[[list[dict[str, Any]]], Any] | None,
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

    def _batch(self, draws: Draws) -> ClipBatch | None:
        """None where a short last batch has nothing for this rank."""
        if not len(draws.samples):
            return None
        samples = [self._dataset.clip(*draw) for draw in zip(draws.samples.tolist(), draws.epochs.tolist())]
        return ClipBatch(self._buckets[draws.bucket], self._collate(samples) if self._collate else samples)
