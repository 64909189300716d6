"""One clip of a release, to look at: what a training run would be given of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from unitalking_data.dataset import ClipDataset
from unitalking_data.manifest import read_manifest
from unitalking_data.shard import check_extension, check_key
from unitalking_data.storage import Store


@dataclass(frozen=True)
class ClipView:
    """A clip as :class:`~unitalking_data.dataset.ClipDataset` delivers it, and where it lies.

    Attributes:
        number: of the clip among the ``clips`` of its split.
        shard: path of its tar; ``offset`` and ``size``: bytes of its members there.
        duration_s: seconds.
        width, height: pixels.
        prompt_format: None for a prompt without a description.
        take: the reference recording that was drawn, None for a clip without any.
        members: contents by extension; of the reference takes only the drawn one, as ``ref.wav``.
    """

    key: str
    split: str
    number: int
    clips: int
    shard: str
    offset: int
    size: int
    duration_s: float
    width: int
    height: int
    prompt: str
    prompt_format: str | None
    take: int | None
    members: Mapping[str, bytes]


def view_clip(
    root: str,
    *,
    split: str | None = None,
    number: int = 0,
    key: str | None = None,
    seed: int = 0,
    epoch: int = 0,
    latents: str | None = None,
) -> ClipView:
    """Read one clip.

    Args:
        root: a release, local folder or fsspec URL.
        split: of the clip. None is the split that has ``key``, or without a key ``train`` or else the first.
        number: of the clip in its split; not used with ``key``.
        seed, epoch: of the draw of prompt and take.
        latents: name of an encoder, whose latents are read in place of the media.

    Raises:
        ValueError: there is no such clip, or as :class:`~unitalking_data.dataset.ClipDataset`.
        FileNotFoundError: its shard is missing.
    """
    if key is None:
        clips = ClipDataset(root, split or _first_split(root), seed=seed, latents=latents)
        if not 0 <= number < len(clips):
            raise ValueError(f"split {clips.split!r} has the clips 0 … {len(clips) - 1:,}, and no clip {number:,}")
    else:
        clips, number = _find(root, [split] if split else _splits(root), key, seed, latents)
    clip, index = clips.clip(number, epoch), clips.index
    return ClipView(
        key=clip["key"],
        split=clips.split,
        number=number,
        clips=len(clips),
        shard=index.place(number).shard.path,
        offset=index.place(number).offset,
        size=index.place(number).size,
        duration_s=float(index.duration_s[number]),
        width=int(index.width[number]),
        height=int(index.height[number]),
        prompt=clip["prompt"],
        prompt_format=clip["prompt_format"],
        take=clip["take"],
        members={name: value for name, value in clip.items() if isinstance(value, bytes)},
    )


def describe_clip(view: ClipView) -> str:
    """Lines with everything about the clip but the contents of its members."""
    form = f"{view.prompt_format}: " if view.prompt_format else "no description: "
    width = max(map(len, view.members), default=0)
    rows = [
        ("key", view.key),
        ("split", f"{view.split}, clip {view.number:,} of {view.clips:,}"),
        ("shard", f"{view.shard}, {view.size:,} bytes from byte {view.offset:,}"),
        ("duration", f"{view.duration_s:.3f} s"),
        ("size", f"{view.width} × {view.height} pixels"),
        ("prompt", form + view.prompt if view.prompt else "none"),
        ("take", "none" if view.take is None else str(view.take)),
        *(("member", f"{name:{width}} {len(data):>13,} bytes") for name, data in view.members.items()),
    ]
    return "\n".join(f"{name:9}{_printable(value)}" for name, value in rows)


def write_members(view: ClipView, folder: str) -> list[str]:
    """Write the members as ``KEY.extension`` into a folder or fsspec URL, which is made; returns their names.

    Raises:
        ValueError: the clip's key or an extension could leave the folder.
    """
    check_key(view.key)
    for extension in view.members:
        check_extension(view.key, extension)
    store = Store(folder)
    for extension, data in view.members.items():
        store.write_bytes(f"{view.key}.{extension}", data)
    return [f"{view.key}.{extension}" for extension in view.members]


def _splits(root: str) -> list[str]:
    return [split for split, totals in read_manifest(Store(root)).splits.items() if totals.clips]


def _first_split(root: str) -> str:
    splits = _splits(root)
    if not splits:
        raise ValueError(f"the release in {root} has no clips")
    return "train" if "train" in splits else splits[0]


def _find(root: str, splits: list[str], key: str, seed: int, latents: str | None) -> tuple[ClipDataset, int]:
    """The split that has the clip, and its number there."""
    for split in splits:
        clips = ClipDataset(root, split, seed=seed, latents=latents)
        number = pc.index(clips.index.keys, pa.scalar(key)).as_py()
        if number >= 0:
            return clips, number
    raise ValueError(f"no clip {key!r} in {', '.join(splits) or 'the release'} of {root}")


def _printable(text: str) -> str:
    """Captions come from models and keys from files: neither may steer a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
