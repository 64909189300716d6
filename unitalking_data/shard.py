"""WebDataset shards: tar files whose bytes depend on nothing but their samples.

Plain USTAR, no pax headers; every member has the same time, owner and mode. A sample's members follow one another and
are named ``KEY.extension``, so that stock readers find the key before the first dot. Each sample is a run of whole
512-byte blocks, ``[offset, offset + size)``. It can be read by itself and copied to another shard as it is.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from unitalking_data.storage import Store

BLOCK = tarfile.BLOCKSIZE
MAX_KEY = 64
_KEY = re.compile(r"[A-Za-z0-9_-]+")
_EXTENSION = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)*")
_SHARD = re.compile(r"([a-z0-9_]+)-(\d{6})\.tar")


class ShardError(ValueError):
    """A shard is not what its writer wrote; the message names it."""


@dataclass(frozen=True, slots=True)
class SampleBlocks:
    """The blocks of one sample.

    Attributes:
        data: headers, members and padding, a multiple of 512 bytes.
    """

    key: str
    data: bytes

    @property
    def crc32(self) -> int:
        return zlib.crc32(self.data)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sample lies in its shard.

    Attributes:
        offset, size: bytes of its run of blocks, from the first header to the end of the last padding.
        crc32: of those bytes.
    """

    key: str
    offset: int
    size: int
    crc32: int


@dataclass(frozen=True, slots=True)
class ShardFile:
    """A shard that has been written.

    Attributes:
        sha256: hex digest of all its bytes.
        places: its samples, in their order.
    """

    bytes: int
    sha256: str
    places: tuple[Place, ...]


def check_key(key: str) -> None:
    """Raises ValueError unless all readers agree where the key ends: up to 64 letters, digits, ``_`` and ``-``."""
    if not _KEY.fullmatch(key) or len(key) > MAX_KEY:
        raise ValueError(
            f"key {key!r} cannot name files of a shard: use up to {MAX_KEY} letters, digits, '_' and '-' (a dot would "
            "end the key early, a slash would make a folder)"
        )


def check_extension(key: str, extension: str) -> None:
    """Raises ValueError unless a member's extension is lower-case letters, digits and ``_``, in parts between dots."""
    if not _EXTENSION.fullmatch(extension):
        raise ValueError(f"sample {key}: extension {extension!r} must be lower-case letters, digits, '_', and dots")


def shard_name(split: str, number: int) -> str:
    """``train-000012.tar``"""
    return f"{split}-{number:06d}.tar"


def parse_shard_name(name: str) -> tuple[str, int]:
    """Split and number of a shard's file name; raises ValueError on another name."""
    match = _SHARD.fullmatch(name.rsplit("/", 1)[-1])
    if not match:
        raise ValueError(f"{name!r} is not the name of a shard, such as train-000012.tar")
    return match[1], int(match[2])


def pack(key: str, members: Mapping[str, bytes]) -> SampleBlocks:
    """The tar blocks of one sample.

    Args:
        members: contents by extension (``mp4``, ``ref0.wav``), in the order in which they will stand.

    Raises:
        ValueError: a key or an extension that stock readers would take for another, or no member.
    """
    check_key(key)
    if not members:
        raise ValueError(f"sample {key} has no members")
    out = io.BytesIO()
    for extension, content in members.items():
        check_extension(key, extension)
        info = tarfile.TarInfo(f"{key}.{extension}")
        info.size, info.mode = len(content), 0o644
        out.write(info.tobuf(tarfile.USTAR_FORMAT))
        out.write(content)
        out.write(bytes(-len(content) % BLOCK))
    return SampleBlocks(key, out.getvalue())


def unpack(data: bytes | memoryview, name: str) -> dict[str, bytes]:
    """The members of one sample's blocks by extension, in their order.

    Args:
        name: of the shard, for messages.

    Raises:
        ShardError: the blocks are not whole members of one sample.
    """
    members: dict[str, bytes] = {}
    keys = set()
    for key, extension, start, size in walk(data, name):
        keys.add(key)
        if extension in members:
            raise ShardError(f"{name}: member {key}.{extension} stands twice")
        members[extension] = bytes(data[start : start + size])
    if len(keys) != 1:
        raise ShardError(f"{name}: expected the members of one sample, found those of {sorted(keys)}")
    return members


def walk(data: bytes | memoryview, name: str) -> Iterator[tuple[str, str, int, int]]:
    """Key, extension, offset and size of every member in a run of tar blocks.

    Raises:
        ShardError: a damaged header, a member that is cut short, or one that is not a plain file.
    """
    at = 0
    while at < len(data):
        try:
            member, size = _header(bytes(data[at : at + BLOCK]))
        except ValueError as error:
            raise ShardError(f"{name}: damaged tar header at byte {at} of the sample ({error})") from None
        key, dot, extension = member.partition(".")
        start = at + BLOCK
        if not dot or start + size > len(data):
            raise ShardError(f"{name}: member {member!r} is cut short or not named KEY.extension")
        yield key, extension, start, size
        at = start + size + -size % BLOCK


def _header(block: bytes) -> tuple[str, int]:
    """Name and size of a plain file from its ustar header; a fifth of the time of :class:`tarfile.TarInfo`.

    Raises:
        ValueError: it is something else, or damaged.
    """
    if len(block) < BLOCK or block[257:262] != b"ustar" or block[156:157] not in b"0\0":
        raise ValueError("no ustar header of a plain file")
    # the checksum counts its own field as blanks
    if int(block[148:156].rstrip(b"\0 "), 8) != sum(block) - sum(block[148:156]) + 8 * ord(" "):
        raise ValueError("wrong checksum")
    return block[:100].rstrip(b"\0").decode(), int(block[124:136].rstrip(b"\0 "), 8)


def write_shard(store: Store, name: str, samples: Iterable[SampleBlocks]) -> ShardFile:
    """Write a shard under a temporary name and rename it; nothing is left of one that fails.

    One sample is held in memory at a time.

    Args:
        name: path in the store.

    Raises:
        ValueError: a key stands twice.
        OSError: the storage failed (a full disk).
    """
    places: dict[str, Place] = {}
    digest, offset = hashlib.sha256(), 0
    with store.writing(name) as path, Path(path).open("wb") as out:
        for sample in samples:
            if sample.key in places:
                raise ValueError(f"{name}: clip {sample.key} is given twice")
            out.write(sample.data)
            digest.update(sample.data)
            places[sample.key] = Place(sample.key, offset, len(sample.data), sample.crc32)
            offset += len(sample.data)
        end = bytes(2 * BLOCK + -(offset + 2 * BLOCK) % tarfile.RECORDSIZE)
        out.write(end)
        digest.update(end)
    return ShardFile(offset + len(end), digest.hexdigest(), tuple(places.values()))


def read_sample(store: Store, name: str, place: Place) -> SampleBlocks:
    """One sample's blocks out of a shard, by a range read, checked.

    Raises:
        ShardError: the shard is shorter than it was, or the bytes have changed.
        FileNotFoundError: there is no such shard.
    """
    data = store.read_range(name, place.offset, place.size)
    if len(data) != place.size:
        raise ShardError(f"{name}: cut short, sample {place.key} should end at byte {place.offset + place.size}")
    if zlib.crc32(data) != place.crc32:
        raise ShardError(f"{name}: the bytes of sample {place.key} have changed since they were written")
    return SampleBlocks(place.key, data)
