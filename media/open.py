"""Open a local path or an fsspec URL as a PyAV container, with the limits that untrusted files need."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self
from urllib.parse import unquote, urlsplit

import av
import fsspec
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from media.clip import MediaError

MAX_PIXELS = 8192 * 8192
BUFFER_BYTES = 1 << 16
REMOTE_BLOCK_BYTES = 1 << 20

# Only self-contained formats that keep time: a playlist named .mp4 could make the demuxer open other files and
# addresses. The audio formats are here to be refused by name.
CONTAINERS = (
    *("mov", "matroska", "avi", "mpegts", "mpeg", "flv", "asf", "ogg", "mxf", "nut", "ivf", "gif", "rm", "dv"),
    *("wav", "mp3", "aac", "flac"),
)

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(://|::)")


class StoredFile:
    """A seekable binary file that counts the bytes given out (for a cached remote file, those fetched).

    Whatever the store's client raises while reading, which may be of a type of its own, becomes an OSError.
    """

    def __init__(self, uri: str, file: BinaryIO) -> None:
        self._uri, self._file = uri, file
        self._given = 0
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        try:
            data = self._file.read(size)
        except Exception as error:
            raise _storage_error(self._uri, error) from error
        self._given += len(data)
        return data

    @property
    def bytes_read(self) -> int:
        fetched = getattr(getattr(self._file, "cache", None), "total_requested_bytes", 0)
        return fetched or self._given

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


@dataclass(slots=True)
class OpenMedia:
    """An open file with the streams that are used.

    Attributes:
        container: PyAV container, at its start.
        video: preferred video stream; cover art is not one.
        audio: preferred audio stream, or None.
        file: what is read from; ``file.bytes_read`` grows with use.
        size_bytes: size of the file.
        origin_s: earliest video timestamp in seconds on the container's clock, the zero of ours.
    """

    container: InputContainer
    video: VideoStream
    audio: AudioStream | None
    file: StoredFile
    size_bytes: int
    origin_s: float

    def rewind(self) -> None:
        """Back to the first packet."""
        self.container.seek(min(0, round(self.origin_s * av.time_base)))

    def frame_rate(self, measured: float) -> float:
        """Frames per second: the header's, exact where timestamps are rounded, unless it is off by over 1 %."""
        stated = float(self.video.average_rate or 0)
        return stated if not measured or abs(stated - measured) <= 0.01 * measured else measured

    @property
    def audio_delay_s(self) -> float:
        """How much later than the video the audio begins; 0 without audio or where the header does not say."""
        if self.audio is None or self.audio.start_time is None or self.audio.time_base is None:
            return 0.0
        return float(self.audio.start_time * self.audio.time_base) - self.origin_s


def is_url(uri: str) -> bool:
    return bool(_URL.match(uri))


def open_bytes(uri: str) -> StoredFile:
    """The file's bytes.

    Raises:
        MediaError: there is no such file, it is a folder, or (on this machine) it may not be read.
        OSError: the storage failed, which another attempt may not see.
    """
    try:
        return StoredFile(uri, _open(uri))
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise MediaError(f"{uri!r}: no such file") from error
    except ValueError as error:
        raise MediaError(f"{uri!r}: not a path or URL that can be opened ({error})") from error
    except Exception as error:
        if isinstance(error, PermissionError) and not is_url(uri):
            raise MediaError(f"{uri!r}: may not be read (permission denied)") from error
        raise _storage_error(uri, error) from error


def _open(uri: str) -> BinaryIO:
    if uri.startswith("file://"):
        return Path(unquote(urlsplit(uri).path)).open("rb")
    if not is_url(uri):
        return Path(uri).open("rb")
    store, path = fsspec.core.url_to_fs(uri)
    return store.open(path, "rb", block_size=REMOTE_BLOCK_BYTES, cache_type="readahead")


def _storage_error(uri: str, error: Exception) -> OSError:
    return error if isinstance(error, OSError) else OSError(f"{uri!r}: {type(error).__name__}: {error}")


@contextmanager
def open_media(uri: str) -> Iterator[OpenMedia]:
    """Open ``uri`` for demuxing and close all of it afterwards.

    Raises:
        MediaError: missing, unreadable or empty file, not a media file, no video stream, or a frame in the
            header of more than ``MAX_PIXELS`` pixels.
        OSError: the storage failed.
    """
    with open_bytes(uri) as file:
        size = file.seek(0, 2)
        file.seek(0)
        if size == 0:
            raise MediaError(f"{uri!r}: the file is empty")
        options = {"format_whitelist": ",".join(CONTAINERS), "max_pixels": str(MAX_PIXELS)}
        try:
            container = av.open(file, options=options, buffer_size=BUFFER_BYTES, metadata_errors="replace")
        except (av.InvalidDataError, av.ArgumentError, av.EOFError) as error:
            what = "cut short: its index (moov) is missing" if _lacks_moov(file, size) else "not a video file"
            raise MediaError(f"{uri!r}: {what}") from error
        try:
            yield _with_streams(uri, container, file, size)
        finally:
            container.close()


def why(error: av.FFmpegError) -> str:
    """The reason that the demuxer or decoder gave."""
    return f"{error.strerror} ({error.log[2].strip()})" if error.log else str(error.strerror)


def _lacks_moov(file: StoredFile, size: int) -> bool:
    """Whether it begins as an mp4 but none of its top-level boxes is the index."""
    at, kinds = 0, []
    while at + 8 <= size and len(kinds) < 1000:
        file.seek(at)
        head = file.read(16)
        kinds.append(head[4:8])
        length = int.from_bytes(head[:4])
        length = int.from_bytes(head[8:16]) if length == 1 else length or size
        at += max(length, 8)
    return b"ftyp" in kinds[:1] and b"moov" not in kinds


def _with_streams(uri: str, container: InputContainer, file: StoredFile, size: int) -> OpenMedia:
    videos = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not videos:
        held = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
        raise MediaError(f"{uri!r}: no video stream (the file holds: {held})")
    video = container.streams.best("video")
    video = video if video in videos else videos[0]
    context = video.codec_context
    if context is None:
        raise MediaError(f"{uri!r}: no decoder for its video stream")
    # The decoder, too, refuses to hold a larger frame, and then the size reads as 0×0.
    if not 0 < context.width * context.height <= MAX_PIXELS:
        raise MediaError(
            f"{uri!r}: the header's picture size ({context.width}×{context.height}) is missing or over the limit"
            f" of {MAX_PIXELS} pixels"
        )
    audio = container.streams.best("audio")
    if audio is not None and (audio.codec_context is None or not audio.codec_context.sample_rate):
        audio = None
    start = video.start_time if video.start_time is not None else 0
    return OpenMedia(container, video, audio, file, size, float(start * video.time_base))
