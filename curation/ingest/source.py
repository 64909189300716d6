"""The stage that opens every source once: what the file is, the hash of its bytes, and where its shots are."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path, PurePosixPath

import av
import numpy as np
import pyarrow as pa
from av.video.reformatter import VideoReformatter

from curation.ingest.shots import ContentDetector, ShotConfig, ShotDetector, TransNetDetector, find_shots
from engine.items import Source
from engine.stage import INTERVALS, Failure, Outcome, Resources, Stage, Value, field
from media.clip import MediaError
from media.open import MAX_PIXELS, OpenMedia, is_url, open_bytes, open_media
from media.probe import content_hash, probe
from perception.transnet import HEIGHT, WIDTH, load_transnet


class SourceStage(Stage[Source]):
    """Probes, hashes and splits into shots; a file that is no video, or cannot be decoded, is a failure."""

    name = "source"
    version = "1"
    Config = ShotConfig
    config: ShotConfig
    resources = Resources(cpus=1.0, memory=1 << 30)
    values = pa.schema(
        [
            field("content", pa.string(), "sha256 of the file's bytes"),
            field("size_bytes", pa.int64(), "size of the file, bytes"),
            field("duration_s", pa.float64(), "first frame to end of the last, s"),
            field("width", pa.int32(), "displayed width, rotation applied, pixels"),
            field("height", pa.int32(), "displayed height, rotation applied, pixels"),
            field("rotation", pa.int32(), "clockwise turn by a player, one of 0, 90, 180, 270 degrees"),
            field("pixel_format", pa.string(), "FFmpeg's name of the pixel format"),
            field("bit_depth", pa.int32(), "bits per component, 8 or more"),
            field("video_codec", pa.string(), "FFmpeg's name of the video decoder"),
            field("fps", pa.float64(), "frames divided by duration, 1/s"),
            field("variable_rate", pa.bool_(), "frames come at uneven distances"),
            field("keyframe_interval_s", pa.float64(), "mean distance of keyframes, s; none with fewer than two"),
            field("audio_tracks", pa.int32(), "number of audio streams, 0 or more"),
            field("audio_codec", pa.string(), "FFmpeg's name of the first audio decoder, empty without audio"),
            field("audio_rate", pa.int32(), "sampling rate of the first audio stream, Hz, 0 without audio"),
            field("audio_channels", pa.int32(), "channels of the first audio stream, 0 without audio"),
            field("audio_delay_s", pa.float64(), "start of the audio minus start of the video, s, 0 without audio"),
            field("shots", INTERVALS, "uncut stretches in order, s on the video's clock from its first frame"),
        ]
    )

    def weights(self) -> tuple[str, ...]:
        return ("transnetv2",) if self.config.backend == "transnetv2" else ()

    def setup(self, weights: Mapping[str, Path]) -> None:
        self._detector: ShotDetector
        if self.config.backend == "transnetv2":
            self._detector = TransNetDetector(load_transnet(weights["transnetv2"]), self.config)
        else:
            self._detector = ContentDetector(self.config)

    def score(self, items: Sequence[Source]) -> list[Outcome]:
        return [self._measure(item.uri) for item in items]

    def _measure(self, uri: str) -> Outcome:
        try:
            with local_copy(uri) as (path, content):
                info = probe(path)
                shots = find_shots(small_frames(path), self._detector, self.config.threshold, info.duration_s)
                if not shots:
                    return Failure("media", f"{path!r}: no frame can be decoded".replace(path, uri))
                return Value({**asdict(info), "content": content, "shots": shots})
        except MediaError as error:
            return Failure("media", str(error))
        except OSError as error:
            return Failure("io", f"{uri!r}: {error}")


@contextmanager
def local_copy(uri: str) -> Iterator[tuple[str, str]]:
    """A local path with the bytes of ``uri`` and their sha256; a remote file crosses the network once.

    Raises:
        MediaError: there is no such file; also those of the body, with ``uri`` for the path of the copy.
        OSError: the storage failed, or there is no room for the copy.
    """
    if not is_url(uri):
        yield uri, content_hash(uri)
        return
    with tempfile.TemporaryDirectory(prefix="source-") as folder:
        path = str(Path(folder) / f"copy{PurePosixPath(uri).suffix[:8]}")
        try:
            with open_bytes(uri) as stream, Path(path).open("wb") as out:
                shutil.copyfileobj(stream, out, 1 << 20)
        except (OSError, MediaError):
            raise
        except Exception as error:
            # Object stores have error types of their own (no credentials, no such endpoint).
            raise OSError(f"{type(error).__name__}: {error}") from error
        with Path(path).open("rb") as copy:
            content = hashlib.file_digest(copy, "sha256").hexdigest()
        try:
            yield path, content
        except MediaError as error:
            raise MediaError(str(error).replace(path, uri)) from error


def small_frames(uri: str) -> Iterator[tuple[float, np.ndarray]]:
    """Time in seconds from the video's start and uint8 RGB ``[27, 48, 3]`` of every frame that can be decoded."""
    with open_media(uri) as media:
        media.video.codec_context.thread_count = 1
        media.video.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        latest = -np.inf
        reformatter = VideoReformatter()
        for packet in _packets(media):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                continue  # a damaged packet costs its frames alone
            for frame in frames:
                if frame.pts is None or frame.is_corrupt:
                    continue
                moment = float(frame.pts * frame.time_base) - media.origin_s
                if moment <= latest:
                    continue  # a timestamp that goes back is never shown
                latest = moment
                small = reformatter.reformat(frame, WIDTH, HEIGHT, "rgb24", interpolation="AREA")
                yield moment, small.to_ndarray()


def _packets(media: OpenMedia) -> Iterator[av.Packet]:
    """Video packets up to where the file breaks off."""
    with suppress(av.FFmpegError):
        yield from media.container.demux(media.video)
