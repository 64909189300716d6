"""The clips of a release as a map-style dataset. Needs no torch, and works with any loader that indexes. ::

clips = ClipDataset("s3://bucket/release/v1", "train", cache="/scratch/shards", cache_bytes=500 << 30)
clips[0]["prompt"], clips[0]["mp4"]
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unitalking_data.decoders import RAW
from unitalking_data.index import check_shards, read_index
from unitalking_data.manifest import SUCCESS, Manifest, ManifestError, read_manifest
from unitalking_data.meta import MetaRows
from unitalking_data.prompts import ATOMS, PromptConfig, draw_format, draw_take, render
from unitalking_data.shard import ShardError, walk
from unitalking_data.shard_cache import ShardCache
from unitalking_data.shard_reader import ShardReader
from unitalking_data.storage import Store

ATOM_COLUMNS = (*ATOMS.values(), "audio_caption", "transcript")
_TAKE = re.compile(r"ref\d+\.")  # a reference recording or its latents: ref1.wav


class ClipDataset:
    """The clips of a split in the order of the shards.

    ``dataset[i]`` is clip *i* as a dict:

    - ``key`` and ``epoch``;
    - ``prompt`` and ``prompt_format``, which is None for a clip without a description;
    - ``take``: which reference recording was drawn, None for a clip without any;
    - the ``columns`` asked for;
    - its members by extension (``mp4``, ``wav``, ``json``, ``video.npy``…), as bytes or decoded.

    Of the reference takes only the drawn one is there: ``KEY.ref2.wav`` is delivered as ``ref.wav``. Prompt format and
    take are drawn by hash of (key, epoch, seed).

    Args:
        root: a release, local folder or fsspec URL.
        split: of the release.
        latents: name of an encoder: reads ``latents/<encoder>/`` in place of ``media/``.
        members: extensions to deliver, all if None; naming ``ref.wav`` asks for the drawn take.
        decoders: by last part of the extension, for example :data:`unitalking_data.decoders.DECODERS`; members of other
            extensions stay bytes.
        prompts: how prompts are drawn and rendered; None reads no captions.
        columns: further columns of ``meta/`` to deliver.
        seed: of the draws.
        cache: folder for downloaded shards of a remote release, shared by all processes of the machine. Without one
            each clip is read by a ranged request.
        cache_bytes: bound of that folder. It should hold the loader's window of shards and one for each worker.

    Raises:
        ManifestError: (a ValueError) there is no finished release of this schema version, its index is damaged, there
            are no such latents, or they were made of another release.
        ShardError: (a ValueError) a shard has another size than the manifest says.
        ValueError: there is no such split, or it has no clips.
        FileNotFoundError: a shard is missing.
        ImportError: ``root`` is an ``s3://`` URL and the extra ``s3`` is not installed.
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
        """Draw prompts and takes for this epoch from now on. Workers that already run keep theirs."""
        self.epoch = epoch

    def clip(self, number: int, epoch: int) -> dict[str, Any]:
        """Clip ``number`` (0…len−1) with the prompt and take of ``epoch``.

        Raises:
            IndexError: there is no such clip.
            FileNotFoundError: its shard is missing.
            ShardError: its shard is damaged, or lacks a member that was asked for.
            ManifestError: its row in ``meta/`` is missing or of another schema version.
            ImportError: a decoder needs an extra that is not installed.
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
    """The set of latents of this name, which must have been made of this very release."""
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
