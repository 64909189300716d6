"""Cut a clip out of a file at exact times: its video as it is where the cut allows, encoded again where not."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
from av.video.frame import PictureType
from av.video.stream import VideoStream

from media.clip import MediaError
from media.collect import COMPLETE, TOLERANCE_S
from media.decode import decode_clip
from media.encode import MUXER, REPRODUCIBLE, AudioTrack, write_wav
from media.geometry import Orientation
from media.open import MAX_PIXELS, OpenMedia, open_media, why
from media.resample import resample
from media.seek import packets_from

# Of two rates closer than this, one is the other rounded; 24 and 23.976 are 1e-3 apart.
SAME_RATE = 2e-4
_LIMITED_RANGE = 1
# "avcC" begins with its version; a stream with start codes needs a filter before mp4 takes it.
_AVCC = b"\x01"


@dataclass(frozen=True, slots=True)
class VideoFormat:
    """What a cut clip's video shall be.

    Attributes:
        fps: frames a second; None keeps the source's average rate.
        crf: constant rate factor of x264, 0–51, lower is better.
        preset: speed of x264.
        copy: take the source's own packets where the cut allows.
    """

    fps: float | None = None
    crf: float = 18
    preset: str = "medium"
    copy: bool = True


@dataclass(frozen=True, slots=True)
class CutClip:
    """A clip as it will be published.

    Attributes:
        mp4: H.264 video, with the audio as AAC if there is any.
        wav: 16-bit PCM, as long as the video; None without audio.
        frames, fps: how many frames, and how many a second, constant.
        width, height: pixels, as displayed.
        audio_rate, audio_channels: of the wav; 0 without audio.
        encoded_because: why the video was encoded again, ``""`` where it is the source's own.
    """

    mp4: bytes
    wav: bytes | None
    frames: int
    fps: float
    width: int
    height: int
    audio_rate: int
    audio_channels: int
    encoded_because: str


class _CannotCopy(Exception):
    """Why the packets cannot be taken as they are."""


def cut_clip(
    uri: str,
    start_s: float,
    end_s: float,
    video: VideoFormat,
    *,
    audio_rate: int | None = None,
    audio_shift_s: float = 0.0,
) -> CutClip:
    """Cut ``[start_s, end_s)`` out of a file; the same input gives the same bytes.

    Frame *k* is what a player shows at ``start_s + k / fps``. Audio starts and ends with the frames; more than two
    channels are mixed to one.

    Args:
        uri: local path or fsspec URL.
        start_s, end_s: seconds from the source's earliest frame.
        audio_rate: of the audio in Hz; None keeps the source's.
        audio_shift_s: how much later the audio is to be heard; silence stands where the source has none.

    Raises:
        MediaError: the file is at fault.
        OSError: the storage failed.
    """
    with open_media(uri) as media, tempfile.TemporaryDirectory() as folder:
        media.video.codec_context.thread_count = 1
        media.video.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        mp4, wav = Path(folder) / "clip.mp4", Path(folder) / "clip.wav"
        try:
            source = _choose(media, uri, start_s, end_s, video)
            seconds = float(source.frames / source.fps)
            audio, rate = _audio(uri, start_s - audio_shift_s, seconds, audio_rate) if media.audio else (None, 0)
            with av.open(str(mp4), "w", format="mp4", options=MUXER) as out:
                out.flags |= av.container.Flags.bitexact.value  # no time of writing, no name of the muxer
                stream = source.add_stream(out)
                track = AudioTrack(out, audio, rate, 0.0) if audio is not None else None
                for packet in source.packets(stream):
                    out.mux(packet)
                    if track is not None and packet.pts is not None:
                        track.write_until(float(packet.pts * packet.time_base))
                if track is not None:
                    track.finish()
                width, height = stream.codec_context.width, stream.codec_context.height
        except av.FFmpegError as error:
            raise MediaError(f"{uri!r}: cannot be cut: {why(error)}") from error
        if audio is not None:
            write_wav(wav, audio, rate)
        return CutClip(
            mp4=mp4.read_bytes(),
            wav=wav.read_bytes() if audio is not None else None,
            frames=source.frames,
            fps=float(source.fps),
            width=width,
            height=height,
            audio_rate=rate,
            audio_channels=0 if audio is None else len(audio),
            encoded_because=source.reason,
        )


def _choose(media: OpenMedia, uri: str, start_s: float, end_s: float, video: VideoFormat) -> _PacketCopy | _Encoder:
    native = _native_rate(media, start_s, end_s)
    fps = Fraction(video.fps or native).limit_denominator(1001)
    try:
        if not video.copy:
            raise _CannotCopy("asked for")
        if abs(fps / native - 1) > SAME_RATE:
            raise _CannotCopy("frame rate")
        return _PacketCopy(media, start_s, end_s, native)
    except _CannotCopy as cause:
        media.rewind()
        return _Encoder(media, uri, start_s, end_s, fps, video, str(cause))


def _native_rate(media: OpenMedia, start_s: float, end_s: float) -> Fraction:
    """Average frames a second in the interval; the header's rate where they agree, which is not rounded."""
    tick, times = float(media.video.time_base), []
    for packet in packets_from(media, start_s, [media.video]):
        if packet.dts is not None and packet.dts * tick - media.origin_s >= end_s:
            break
        stamp = packet.dts if packet.pts is None else packet.pts
        if stamp is not None and start_s - TOLERANCE_S <= stamp * tick - media.origin_s < end_s - TOLERANCE_S:
            times.append(stamp * tick)
    media.rewind()
    span_s = max(times) - min(times) if times else 0.0
    stated = media.video.average_rate
    measured = (len(times) - 1) / span_s if span_s > 0 else float(stated or media.video.guessed_rate or 25)
    if stated and abs(stated - measured) <= 0.01 * measured:
        return stated
    return Fraction(measured).limit_denominator(1001)


class _PacketCopy:
    """The source's own packets, moved to begin at 0."""

    reason = ""

    def __init__(self, media: OpenMedia, start_s: float, end_s: float, fps: Fraction) -> None:
        self._media, self.fps = media, fps
        self._check_format()
        self._packets = self._pick(start_s, end_s)
        self.frames = len(self._packets)
        self._check_times()
        self._check_shown()

    def add_stream(self, out: av.container.OutputContainer) -> VideoStream:
        stream = out.add_stream_from_template(self._media.video)
        stream.time_base = self._media.video.time_base
        stream.codec_context.codec_tag = "avc1"
        return stream

    def packets(self, stream: VideoStream) -> Iterator[av.Packet]:
        first = min(packet.pts for packet in self._packets)
        for packet in self._packets:
            packet.stream = stream
            packet.pts, packet.dts = packet.pts - first, packet.dts - first
            yield packet

    def _check_format(self) -> None:
        context = self._media.video.codec_context
        if context.name != "h264" or context.pix_fmt != "yuv420p" or context.width % 2 or context.height % 2:
            raise _CannotCopy("format")
        if not (context.extradata or b"").startswith(_AVCC):
            raise _CannotCopy("container")

    def _pick(self, start_s: float, end_s: float) -> list[av.Packet]:
        """The packets shown in the interval, in decoding order."""
        media = self._media
        tick, picked, later = float(media.video.time_base), [], False
        for packet in packets_from(media, start_s, [media.video]):
            if packet.size == 0:
                continue
            if packet.pts is None or packet.dts is None:
                raise _CannotCopy("timestamps")
            time_s = packet.pts * tick - media.origin_s
            if not picked and (not packet.is_keyframe or abs(time_s - start_s) > TOLERANCE_S):
                if packet.dts * tick - media.origin_s > start_s + TOLERANCE_S:
                    break
                if packet.is_keyframe and time_s < start_s:
                    raise _CannotCopy("cut between keyframes")
                continue
            if packet.dts * tick - media.origin_s >= end_s - TOLERANCE_S:
                break
            if time_s >= end_s - TOLERANCE_S:
                later = True
            elif time_s >= start_s - TOLERANCE_S:  # frames that lead the keyframe need what is before it
                if later:
                    raise _CannotCopy("last pictures need later ones")
                picked.append(packet)
        if not picked:
            raise _CannotCopy("cut between keyframes")
        return picked

    def _check_times(self) -> None:
        """Constant rate, but for rounding."""
        tick = float(self._media.video.time_base)
        times = np.sort([packet.pts for packet in self._packets]) * tick
        due = times[0] + np.arange(len(times)) / float(self.fps)
        if np.abs(times - due).max() > tick + TOLERANCE_S:
            raise _CannotCopy("variable frame rate")

    def _check_shown(self) -> None:
        """Upright and with square pixels, as the first frame says."""
        context = self._media.video.codec_context
        frames = [*context.decode(self._packets[0]), *context.decode(None)]
        context.flush_buffers()
        if not frames:
            raise _CannotCopy("damaged keyframe")
        orientation = Orientation.of(frames[0], self._media.video.sample_aspect_ratio)
        if orientation != Orientation(context.width, context.height):
            raise _CannotCopy("rotated, mirrored or non-square pixels")


class _Encoder:
    """Frames at the wanted rate, upright and with square pixels, encoded by x264 in one thread."""

    def __init__(
        self, media: OpenMedia, uri: str, start_s: float, end_s: float, fps: Fraction, video: VideoFormat, reason: str
    ) -> None:
        self._media, self._uri, self._start_s, self._video = media, uri, start_s, video
        self.fps, self.reason = fps, reason
        self.frames = max(1, round((end_s - start_s) * fps))
        self._frames = self._upright()
        self._first = next(self._frames, None)
        if self._first is None:
            raise MediaError(f"{uri!r}: no picture between {start_s:g} and {end_s:g} s can be decoded")

    def add_stream(self, out: av.container.OutputContainer) -> VideoStream:
        stream = out.add_stream("libx264", rate=self.fps)
        stream.width, stream.height, stream.pix_fmt = self._first.width, self._first.height, "yuv420p"
        stream.options = {"crf": str(self._video.crf), "preset": self._video.preset, "a53cc": "0"}
        stream.options |= REPRODUCIBLE["h264"]
        context, source = stream.codec_context, self._media.video.codec_context
        context.thread_count = 1  # more would make the bytes depend on the machine
        context.color_range = _LIMITED_RANGE
        context.colorspace, context.color_primaries = source.colorspace, source.color_primaries
        context.color_trc = source.color_trc
        return stream

    def packets(self, stream: VideoStream) -> Iterator[av.Packet]:
        for number, frame in enumerate(chain([self._first], self._frames)):
            frame.pts, frame.time_base = number, 1 / self.fps
            frame.pict_type = PictureType.NONE  # or the source's keyframes would be forced
            yield from stream.encode(frame)
        yield from stream.encode(None)

    def _upright(self) -> Iterator[av.VideoFrame]:
        """Each of the frames to write: what a player shows at its time."""
        media, upright, shown, number = self._media, _FrameStraightener(), None, 0
        tick, reached_s = float(media.video.time_base), 0.0
        for frame in self._decoded():
            stamp = frame.pts if frame.pts is not None else frame.dts
            time_s = reached_s if stamp is None else stamp * tick - media.origin_s - self._start_s
            while shown is not None and number < self.frames and number / self.fps < time_s - TOLERANCE_S:
                yield upright(shown, media.video)
                number += 1
            if number == self.frames:
                return
            shown, reached_s = frame, time_s + (frame.duration * tick or float(1 / self.fps))
        if reached_s < COMPLETE * float(self.frames / self.fps) - TOLERANCE_S:
            raise MediaError(
                f"{self._uri!r}: only {max(reached_s, 0):.2f} of the clip's {float(self.frames / self.fps):.2f} s of "
                "video can be decoded"
            )
        for _ in range(number, self.frames):
            yield upright(shown, media.video)

    def _decoded(self) -> Iterator[av.VideoFrame]:
        """Frames in their order; a damaged packet costs itself only."""
        media = self._media
        for packet in packets_from(media, self._start_s, [media.video]):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                continue
            yield from frames


class _FrameStraightener:
    """Turns frames as they should be seen: yuv420p, even sides."""

    def __init__(self) -> None:
        self._graph: av.filter.Graph | None = None
        self._of: tuple[int, int, str] | None = None

    def __call__(self, frame: av.VideoFrame, stream: VideoStream) -> av.VideoFrame:
        kind = (frame.width, frame.height, frame.format.name)
        if self._of != kind:
            self._graph, self._of = _graph(frame, stream), kind
        self._graph.vpush(frame)
        return self._graph.vpull()


def _graph(frame: av.VideoFrame, stream: VideoStream) -> av.filter.Graph:
    orientation = Orientation.of(frame, stream.sample_aspect_ratio)
    graph = av.filter.Graph()
    size = {"width": frame.width, "height": frame.height}
    steps = [graph.add_buffer(**size, format=frame.format, time_base=stream.time_base)]
    # Cutting the odd line off, where 4:2:0 cannot hold it, leaves the others as sharp as they are.
    steps.append(graph.add("scale", f"{orientation.width}:{orientation.height}:out_range=tv"))
    steps.append(graph.add("format", "yuv420p"))
    if orientation.transpose:
        steps.append(graph.add("transpose", "0"))
    steps += [graph.add("hflip")] if orientation.flip_x else []
    steps += [graph.add("vflip")] if orientation.flip_y else []
    steps += [graph.add("crop", "trunc(iw/2)*2:trunc(ih/2)*2:0:0"), graph.add("setsar", "1"), graph.add("buffersink")]
    graph.link_nodes(*steps).configure()
    return graph


def _audio(uri: str, start_s: float, seconds: float, rate: int | None) -> tuple[np.ndarray, int]:
    """float32 ``[1 or 2, n]`` from ``start_s`` on, which may be before the source's beginning, and its rate in Hz."""
    lead_s = max(0.0, -start_s)
    media = decode_clip(uri, start_s + lead_s, start_s + max(seconds, lead_s + TOLERANCE_S), needs=frozenset({"audio"}))
    audio = media.audio if len(media.audio) <= 2 else media.audio.mean(axis=0, keepdims=True, dtype=np.float32)
    audio = np.pad(audio, ((0, 0), (round(lead_s * media.audio_rate), 0)))
    rate = rate or media.audio_rate
    if rate != media.audio_rate:
        audio = resample(audio, media.audio_rate, rate)
    length = round(seconds * rate)
    return np.pad(audio[:, :length], ((0, 0), (0, max(0, length - audio.shape[1])))), rate
