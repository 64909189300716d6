"""What a media file's header says, checked on its first frame."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import av
import numpy as np

from media.clip import MediaError
from media.geometry import Orientation
from media.open import MAX_PIXELS, OpenMedia, open_bytes, open_media, why

HASH_BLOCK_BYTES = 1 << 20
SAMPLED_PACKETS = 250
FIRST_FRAME_PACKETS = 100


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """One file with a video stream.

    Attributes:
        duration_s: from the earliest video timestamp to the end of the last video frame.
        size_bytes: size of the file.
        width, height: displayed size in pixels, rotation and pixel aspect applied.
        rotation: clockwise degrees (0, 90, 180, 270) that set the coded frame upright.
        pixel_format: FFmpeg's name, ``yuv420p10le``.
        bit_depth: bits of one luma sample.
        video_codec: FFmpeg's name, ``hevc``.
        fps: average frames per second.
        variable_rate: more than 1 % of the intervals between frames differ from the usual one by more than a
            tenth and more than rounding; from the whole index where the container has one, else from the first
            250 packets.
        keyframe_interval_s: mean distance of keyframes, from the same packets; None with fewer than two.
        audio_tracks: number of audio streams; the other audio fields are of the preferred one, 0 and ``""``
            without any.
        audio_delay_s: how much later than the video the audio begins, negative where it begins earlier.
    """

    duration_s: float
    size_bytes: int
    width: int
    height: int
    rotation: int
    pixel_format: str
    bit_depth: int
    video_codec: str
    fps: float
    variable_rate: bool
    keyframe_interval_s: float | None
    audio_tracks: int
    audio_codec: str
    audio_rate: int
    audio_channels: int
    audio_delay_s: float


def probe(uri: str) -> MediaInfo:
    """Read the header and decode one frame of a local path or fsspec URL.

    Raises:
        MediaError: the file is at fault; the message says how.
        OSError: the storage failed.
    """
    with open_media(uri) as media:
        try:
            return _probe(uri, media)
        except av.FFmpegError as error:
            raise MediaError(f"{uri!r}: cannot be decoded: {why(error)}") from error


def content_hash(uri: str) -> str:
    """Hex sha256 of the file's bytes, read in blocks. Raises as :func:`media.open.open_bytes`."""
    digest = hashlib.sha256()
    with open_bytes(uri) as file:
        while block := file.read(HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _probe(uri: str, media: OpenMedia) -> MediaInfo:
    video, audio = media.video, media.audio
    times, keys = _timeline(media)
    duration_s = _duration(media, times)
    if duration_s <= 0:
        raise MediaError(f"{uri!r}: the video stream is empty")
    gaps = np.diff(times)
    usual = float(np.median(gaps)) if len(gaps) else 0.0
    frame = _first_frame(uri, media)
    orientation = Orientation.of(frame, video.sample_aspect_ratio)
    width, height = orientation.shown
    return MediaInfo(
        duration_s=duration_s,
        size_bytes=media.size_bytes,
        width=width,
        height=height,
        rotation=orientation.rotation,
        pixel_format=frame.format.name,
        bit_depth=frame.format.components[0].bits,
        video_codec=video.codec_context.codec.canonical_name,
        fps=media.frame_rate(len(gaps) / gaps.sum() if gaps.any() else 0.0) or 1 / duration_s,
        variable_rate=_varies(gaps, usual, float(video.time_base)),
        keyframe_interval_s=float(np.mean(np.diff(keys))) if len(keys) > 1 else None,
        audio_tracks=len(media.container.streams.audio),
        audio_codec=audio.codec_context.codec.canonical_name if audio else "",
        audio_rate=audio.codec_context.sample_rate if audio else 0,
        audio_channels=audio.codec_context.layout.nb_channels if audio else 0,
        audio_delay_s=media.audio_delay_s,
    )


def _timeline(media: OpenMedia) -> tuple[np.ndarray, np.ndarray]:
    """Sorted times of the video packets in seconds and those of keyframes.

    From the index where it names every frame (mp4), else from the first packets.
    """
    video = media.video
    tick = float(video.time_base)
    if len(video.index_entries) == video.frames > 0 and media.container.format.name.startswith("mov"):
        stamps = [(entry.timestamp, entry.is_keyframe) for entry in video.index_entries if not entry.is_discard]
    else:
        stamps = []
        for packet in media.container.demux(video):
            stamp = packet.pts if packet.pts is not None else packet.dts
            if stamp is not None:
                stamps.append((stamp, packet.is_keyframe))
            if len(stamps) == SAMPLED_PACKETS:
                break
        media.rewind()
    times = np.sort([stamp for stamp, _ in stamps]) * tick
    return times, np.sort([stamp for stamp, key in stamps if key]) * tick


def _varies(gaps: np.ndarray, usual: float, tick: float) -> bool:
    rounding = max(1.1e-3, 1.1 * tick)
    return bool(len(gaps)) and float(np.mean(np.abs(gaps - usual) > max(0.1 * usual, rounding))) > 0.01


def _duration(media: OpenMedia, times: np.ndarray) -> float:
    video, container = media.video, media.container
    if video.duration:
        return float(video.duration * video.time_base)
    if container.duration and container.duration > 0:
        start = container.start_time or 0
        return (start + container.duration) / av.time_base - media.origin_s
    last = -np.inf  # a stream that was never finished, such as a browser's recording, does not say
    for packet in container.demux(video):
        if packet.pts is not None:
            last = max(last, float((packet.pts + (packet.duration or 0)) * packet.time_base))
    media.rewind()
    return last - media.origin_s


def _first_frame(uri: str, media: OpenMedia) -> av.VideoFrame:
    media.video.codec_context.thread_count = 1
    media.video.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    reason = "it holds no frame"
    for packet in media.container.demux(media.video):
        try:
            for frame in packet.decode():
                return frame
        except av.FFmpegError as error:
            reason = why(error)
    raise MediaError(f"{uri!r}: no frame of the video can be decoded: {reason}")
