"""Decode one clip in one pass over its packets, for all that need it."""

from __future__ import annotations

import math
import time
from typing import Literal

import av

from media.clip import GRID_FPS, SPEECH_RATE, ClipMedia, MediaError
from media.collect import COMPLETE, TOLERANCE_S, AudioCollector, FrameCollector
from media.decord_frames import grid_frames
from media.open import MAX_PIXELS, OpenMedia, open_media, why
from media.planes import Planes
from media.resample import to_mono
from media.seek import packets_from

# Muxers may write a stream up to about a second ahead of the other.
INTERLEAVE_S = 2.0


def decode_clip(
    uri: str,
    start_s: float,
    end_s: float,
    *,
    needs: frozenset[str],
    frame_side: int = 640,
    stills: int = 6,
    threads: int = 1,
    decoder: Literal["pyav", "decord"] = "pyav",
) -> ClipMedia:
    """What ``needs`` names of the clip, in one pass: seek to the keyframe before it, demux and decode once.

    Everything is placed by its timestamps on the presentation clock, whose zero is the earliest video
    timestamp: frame *k* is what a player shows at ``start_s + k / 25``, audio sample *n* what it plays at
    ``start_s + n / rate``. Frames are as displayed: rotation, mirroring and non-square pixels are applied.

    Args:
        uri: local path or fsspec URL.
        start_s, end_s: the interval, in seconds.
        needs: of ``"frames"``, ``"stills"``, ``"audio"``.
        frame_side: longest side of ``frames`` in pixels; smaller sources are not enlarged.
        stills: how many full-size frames.
        threads: of the video decoder.
        decoder: what gives ``frames``, in a pass of its own if not PyAV; see :mod:`media.decord_frames`.

    Raises:
        MediaError: the file is at fault, or less than 90 % of the interval can be decoded.
        ValueError: the decoder is not installed or cannot read this kind of address.
        OSError: the storage failed.
    """
    if not 0 <= start_s < end_s < math.inf:
        raise MediaError(f"{uri!r}: there is no clip from {start_s:g} to {end_s:g} s")
    began = time.perf_counter()
    if decoder == "decord" and "frames" in needs:
        frames, frame_index, size = grid_frames(uri, start_s, end_s, frame_side)
        clip = decode_clip(uri, start_s, end_s, needs=needs - {"frames"}, stills=stills, threads=threads)
        clip.planes, clip.frame_index, (clip.width, clip.height) = Planes(frames), frame_index, size
        clip.decode_seconds = time.perf_counter() - began
        return clip
    with open_media(uri) as media:
        run = _DecodePass(media, uri, start_s, end_s, needs)
        if needs & {"frames", "stills"}:
            run.frames = FrameCollector(
                run.duration_s,
                grid="frames" in needs,
                frame_side=frame_side,
                stills=stills if "stills" in needs else 0,
                frame_s=run.frame_s,
                tick_s=run.video_tick,
                pixel_aspect=media.video.sample_aspect_ratio,
            )
        media.video.codec_context.thread_count = threads
        media.video.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        try:
            run.decode()
        except av.FFmpegError as error:
            raise MediaError(f"{uri!r}: cannot be decoded: {why(error)}") from error
        clip = run.result()
        clip.bytes_read = media.file.bytes_read
    clip.decode_seconds = time.perf_counter() - began
    return clip


class _DecodePass:
    """State of one pass: what collects frames and audio, and what went wrong."""

    def __init__(self, media: OpenMedia, uri: str, start_s: float, end_s: float, needs: frozenset[str]) -> None:
        self.media, self.uri, self.start_s, self.duration_s = media, uri, start_s, end_s - start_s
        self.frame_s = 1 / float(media.video.average_rate or media.video.guessed_rate or GRID_FPS)
        self.frames: FrameCollector | None = None
        self.audio: AudioCollector | None = None
        if "audio" in needs and media.audio is not None:
            context = media.audio.codec_context
            channels = max(context.layout.nb_channels, 1)
            self.audio = AudioCollector(self.duration_s, context.sample_rate, channels, context.layout.name)
        self.zero_s = media.origin_s + start_s
        self.video_tick = float(media.video.time_base)
        self.audio_tick = float(media.audio.time_base) if media.audio is not None else 0.0
        self.video_passed = False
        self.video_bytes = self.video_packets = 0
        self.first_s, self.last_s = math.inf, -math.inf
        self.next_s = 0.0
        self.packets = {"video": 0, "audio": 0}
        self.failed = {"video": 0, "audio": 0}
        self.reason = ""

    def decode(self) -> None:
        streams = [self.media.video] if self.audio is None else [self.media.video, self.media.audio]
        for packet in packets_from(self.media, self.start_s, streams):
            if packet.stream is self.media.video:
                self._take_video(packet)
            elif self.audio is not None and not self.audio.done:
                self._take_audio(packet)
            frames_done = self.video_passed if self.frames is None else self.frames.done
            if frames_done and (self.audio is None or self.audio.done or self.video_passed):
                break
        if self.frames is not None:
            self.frames.finish()
        for kind, failed in self.failed.items():
            if failed > (1 - COMPLETE) * self.packets[kind]:
                raise MediaError(
                    f"{self.uri!r}: {failed} of the clip's {self.packets[kind]} {kind} packets cannot be decoded"
                    f" ({self.reason})"
                )

    def result(self) -> ClipMedia:
        span_s = self.last_s - self.first_s
        fps = self.media.frame_rate((self.video_packets - 1) / span_s if span_s > 0 else 0.0)
        clip = ClipMedia(self.duration_s, fps=fps, audio_delay_s=self.media.audio_delay_s)
        clip.video_bytes = self.video_bytes
        if self.audio is not None:
            clip.audio, clip.audio_rate = self.audio.audio, self.audio.rate
            clip.speech = to_mono(clip.audio, clip.audio_rate, self.audio.layout, SPEECH_RATE)
        if (collected := self.frames) is not None:
            covered_s = collected.reached_s - max(collected.first_s, 0.0)
            if collected.orientation is None or covered_s < COMPLETE * self.duration_s - TOLERANCE_S:
                raise MediaError(
                    f"{self.uri!r}: only {max(covered_s, 0.0):.2f} of the clip's {self.duration_s:.2f} s of video"
                    f" can be decoded{f' ({self.reason})' if self.reason else ''}"
                )
            clip.width, clip.height = collected.orientation.shown
            clip.planes, clip.frame_index = Planes(collected.on_grid, collected.orientation), collected.frame_index
            clip.stills, clip.still_times_s = collected.stills, collected.still_times_s
            clip.decoded_frames = collected.decoded
        return clip

    def _take_video(self, packet: av.Packet) -> None:
        time_s = self._time(packet, self.video_tick)
        if time_s is not None and -TOLERANCE_S <= time_s < self.duration_s - TOLERANCE_S:
            self.video_bytes += packet.size
            self.video_packets += 1
            self.first_s, self.last_s = min(self.first_s, time_s), max(self.last_s, time_s)
        if packet.dts is not None:
            limit_s = self.duration_s + (INTERLEAVE_S if self.audio is not None else 0.0)
            self.video_passed = packet.dts * self.video_tick - self.zero_s >= limit_s
        if self.frames is None or self.frames.done:
            return
        for frame in self._decoded(packet, "video"):
            time_s = self._time(frame, self.video_tick)
            time_s = self.next_s if time_s is None else time_s
            self.next_s = time_s + self.frame_s
            self.frames.add(frame, time_s)

    def _take_audio(self, packet: av.Packet) -> None:
        for frame in self._decoded(packet, "audio"):
            self.audio.add(frame, self._time(frame, self.audio_tick))

    def _time(self, timed: av.Packet | av.VideoFrame | av.AudioFrame, tick: float) -> float | None:
        """Seconds from the clip's start; None without any timestamp."""
        stamp = timed.pts if timed.pts is not None else timed.dts
        return None if stamp is None else stamp * tick - self.zero_s

    def _decoded(self, packet: av.Packet, kind: str) -> list[av.VideoFrame] | list[av.AudioFrame]:
        """The packet's frames; a damaged packet costs itself only."""
        self.packets[kind] += packet.size > 0
        try:
            return packet.decode()
        except av.FFmpegError as error:
            self.failed[kind] += packet.size > 0
            self.reason = why(error)
            return []
