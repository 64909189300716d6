"""A sample's files: ``KEY.mp4``, ``KEY.wav`` and, last, ``KEY.json``, which says that it is done and what made it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from media.encode import replacing, write_video, write_wav
from model.request import Request, RequestError

HASH_BLOCK_BYTES = 1 << 20
# Timestamps are whole ticks of 1/90000 s or of a sample.
TICK_S = 1e-3


@dataclass(frozen=True)
class Sample:
    """What one request became.

    Attributes:
        video: uint8 RGB ``(T, H, W, 3)``, None for speech alone.
        fps: frames per second of the video.
        audio: float32 ``(S,)`` in −1…1; as long as the video, to the sample.
        rate: Hz.
    """

    request: Request
    video: np.ndarray | None
    fps: float
    audio: np.ndarray
    rate: int

    def save(self, folder: str | Path, made_by: dict[str, Any]) -> None:
        """Write the files into ``folder``, each whole or not at all, ``KEY.json`` after the others.

        Raises:
            RuntimeError: video and audio of the written file do not begin and end together.
            OSError: the storage failed.
        """
        folder, key = Path(folder), self.request.key
        folder.mkdir(parents=True, exist_ok=True)
        names = [f"{key}.wav"]
        write_wav(folder / names[0], self.audio, self.rate)
        if self.video is not None:
            names.append(f"{key}.mp4")
            write_video(folder / names[1], self.video, self.fps, audio=self.audio, audio_rate=self.rate, crf=16)
            check_sync(folder / names[1], frames=len(self.video), fps=self.fps, audio_s=len(self.audio) / self.rate)
        record = {"files": {name: file_hash(folder / name) for name in names}, **made_by}
        with replacing(folder / f"{key}.json") as temporary:
            Path(temporary).write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", "utf-8")


def check_sync(path: Path, *, frames: int, fps: float, audio_s: float) -> None:
    """Check that the packets of a written file say: frame *k* at ``k / fps``, audio from 0 to ``audio_s``.

    Raises:
        RuntimeError: they do not; a fault of the writer, not of the user.
    """
    with av.open(str(path)) as file:
        video, audio = file.streams.video[0], file.streams.audio[0]
        packets = [packet for packet in file.demux() if packet.size]
        file.seek(0)
        begin_s = next(file.decode(audio)).time
    times = sorted(float(packet.pts * packet.time_base) for packet in packets if packet.stream is video)
    end_s = max(float((p.pts + p.duration) * p.time_base) for p in packets if p.stream is audio)
    expected = np.arange(frames) / fps
    if len(times) != frames or np.abs(times - expected).max() > TICK_S:
        raise RuntimeError(f"{path}: its {len(times)} frames are not at k / {fps:g} s")
    if abs(begin_s) > TICK_S or abs(end_s - audio_s) > TICK_S:
        raise RuntimeError(f"{path}: its audio is from {begin_s:.4f} to {end_s:.4f} s, not from 0 to {audio_s:.4f} s")


def is_done(folder: Path, key: str, fingerprint: str) -> bool:
    """Whether the sample is finished, by this very configuration.

    Raises:
        RequestError: another configuration has finished it.
    """
    record = folder / f"{key}.json"
    try:
        made_by = json.loads(record.read_text("utf-8"))
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        raise RequestError(f"{record} cannot be read ({error}); remove it to make the sample again") from None
    if made_by.get("fingerprint") != fingerprint:
        raise RequestError(
            f"{record} was made from another request, configuration or weights; choose another folder or remove it"
        )
    return True


@contextmanager
def output_folder(folder: Path) -> Iterator[None]:
    """Make the folder, keep other runs out of it, and clear what a killed run left half-written.

    Raises:
        RequestError: another run writes there, or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise RequestError(f"cannot write to {folder}: {error.strerror}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for half in folder.glob(".writing-*"):
            half.unlink()
        yield
    except BlockingIOError:
        raise RequestError(f"another run writes to {folder}; wait for it or choose another folder") from None
    finally:
        os.close(handle)


def file_hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def folder_hashes(path: str | Path) -> dict[str, str]:
    """SHA-256 of a file, or of each file of a folder, by name.

    Raises:
        RequestError: nothing there.
    """
    path = Path(path)
    if not path.exists():
        raise RequestError(f"no weights at {path}")
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.is_file())
    return {file.name: file_hash(file) for file in files}


def fingerprint(made_by: dict[str, Any]) -> str:
    """Of everything that decides a sample's content."""
    return hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()[:16]
