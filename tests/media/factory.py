"""Small synthetic media files with known content, for the tests of every part.

Frames are 128×96 unless asked otherwise; files are a few kilobytes and take some 50 ms to make.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

SIZE = (128, 96)
CLOCK = 60_000  # MPEG-4 takes no finer one


def write(
    path: Path,
    frames: Iterable[np.ndarray],
    times_s: Sequence[float],
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    rotation: int = 0,
    mirrored: bool = False,
    pixel_aspect: Fraction | None = None,
    audio: np.ndarray | None = None,
    audio_rate: int = 44_100,
    audio_codec: str = "aac",
    audio_start_s: float = 0.0,
    silent_track: bool = False,
) -> Path:
    """Write uint8 RGB frames, each shown from its time on, and float32 ``[channels, n]`` audio.

    The container follows the ending of the name. ``silent_track`` declares an audio stream without a packet.
    ``rotation`` is the counter-clockwise turn that the display matrix asks for.
    """
    with av.open(str(path), "w", options=container or {}) as out:
        video = out.add_stream(codec, rate=25)
        video.pix_fmt, video.time_base = pixel_format, Fraction(1, CLOCK)
        video.codec_context.time_base = Fraction(1, CLOCK)
        video.codec_context.thread_count = 1
        video.options = options or {}
        if rotation or mirrored:
            video.set_display_rotation(rotation, hflip=mirrored)
        if pixel_aspect:
            video.codec_context.sample_aspect_ratio = pixel_aspect
        audio_stream = None
        if audio is not None or silent_track:
            layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[1 if audio is None else len(audio)]
            audio_stream = out.add_stream(audio_codec, rate=audio_rate, layout=layout)
        packets = []
        lengths_s = np.diff(times_s, append=2 * times_s[-1] - times_s[-2] if len(times_s) > 1 else times_s[-1] + 0.04)
        for image, time_s, length_s in zip(frames, times_s, lengths_s, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if not packets and video.width != image.shape[1]:
                video.height, video.width = image.shape[:2]
            frame.pts, frame.time_base = round(time_s * CLOCK), Fraction(1, CLOCK)
            frame.duration = round(length_s * CLOCK)
            packets += video.encode(frame)
        packets += video.encode(None)
        if audio_stream is not None and audio is not None:
            for start in range(0, audio.shape[1], 1024):
                packed = np.ascontiguousarray(audio[:, start : start + 1024].T, np.float32).reshape(1, -1)
                frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=audio_stream.layout.name)
                frame.sample_rate = audio_rate
                frame.pts, frame.time_base = round(audio_start_s * audio_rate) + start, Fraction(1, audio_rate)
                packets += audio_stream.encode(frame)
            packets += audio_stream.encode(None)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            out.mux(packet)
    return path


def regular(seconds: float, fps: float) -> np.ndarray:
    return np.arange(round(seconds * fps)) / fps


def uneven(seconds: float, seed: int = 0) -> np.ndarray:
    """Times of a variable frame rate: intervals of 10 to 110 ms, beginning at 0."""
    steps = np.random.default_rng(seed).uniform(0.01, 0.11, round(seconds * 100))
    times = np.concatenate([[0.0], np.cumsum(steps)])
    return times[times < seconds]


def flashes(times_s: Sequence[float], at_s: Sequence[float], size: tuple[int, int] = SIZE) -> list[np.ndarray]:
    """Dark moving pattern; the last frame that begins by each of ``at_s`` is white."""
    white = {int(np.searchsorted(times_s, t + 1e-6, side="right")) - 1 for t in at_s}
    width, height = size
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    frames = []
    for index in range(len(times_s)):
        if index in white:
            frames.append(np.full((height, width, 3), 255, np.uint8))
        else:
            wave = 40 + 30 * np.sin((x + 3 * index) / 9) * np.cos(y / 7)
            frames.append(np.repeat(wave.astype(np.uint8)[..., None], 3, axis=2))
    return frames


def clicks(seconds: float, at_s: Sequence[float], rate: int = 44_100, channels: int = 1) -> np.ndarray:
    """Silence with a decaying 4 ms burst of 2 kHz from each of ``at_s`` on, the same in all channels."""
    audio = np.zeros((channels, round(seconds * rate)), np.float32)
    t = np.arange(round(0.004 * rate)) / rate
    burst = 0.9 * np.exp(-t / 0.001) * np.cos(2 * np.pi * 2000 * t)
    for moment in at_s:
        start = round(moment * rate)
        part = audio[:, start : start + len(t)]
        part += burst[: part.shape[1]].astype(np.float32)
    return audio


def numbered(times_s: Sequence[float], size: tuple[int, int] = SIZE) -> list[np.ndarray]:
    """Frames whose index reads back from their brightness, by :func:`number_of`; up to 128 of them."""
    width, height = size
    frames = []
    for index in range(len(times_s)):
        image = np.zeros((height, width, 3), np.uint8)
        for bit in range(7):
            if index >> bit & 1:
                image[:, bit * width // 7 : (bit + 1) * width // 7] = 255
        frames.append(image)
    return frames


def number_of(image: np.ndarray) -> int:
    """The index that :func:`numbered` drew, at any size."""
    width = image.shape[1]
    centres = [round((bit + 0.5) * width / 7) for bit in range(7)]
    return sum(int(image[image.shape[0] // 2, x].mean() > 128) << bit for bit, x in enumerate(centres))


def talker(seconds: float = 3.0, fps: float = 25.0, size: tuple[int, int] = SIZE, rate: int = 44_100, seed: int = 0):
    """Frames, times and audio of a drawn head whose mouth opens with the loudness of syllable-like noise."""
    rng = np.random.default_rng(seed)
    knots = rng.uniform(0, 1, round(seconds * 8) + 2)
    level = lambda t: np.interp(t * 8, np.arange(len(knots)), knots)  # noqa: E731
    times = regular(seconds, fps)
    width, height = size
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    frames = []
    for t in times:
        image = np.full((height, width, 3), (70, 90, 110), np.uint8)
        image[(x / 0.5) ** 2 + (y / 0.8) ** 2 < 1] = (220, 180, 150)
        image[(x / 0.2) ** 2 + ((y - 0.4) / (0.02 + 0.2 * level(t))) ** 2 < 1] = (90, 20, 30)
        for side in (-0.2, 0.2):
            image[((x - side) / 0.07) ** 2 + ((y + 0.2) / 0.05) ** 2 < 1] = (30, 30, 30)
        frames.append(image)
    t = np.arange(round(seconds * rate)) / rate
    audio = (0.3 * level(t) * rng.standard_normal(len(t)).clip(-3, 3)).astype(np.float32)
    return frames, times, audio[None]


def truncated(source: Path, path: Path, share: float) -> Path:
    """The first ``share`` of a file's bytes."""
    data = source.read_bytes()
    path.write_bytes(data[: round(share * len(data))])
    return path


def scrambled(source: Path, path: Path, start: float, end: float, seed: int = 0) -> Path:
    """A file whose bytes between two shares of its length are noise."""
    data = bytearray(source.read_bytes())
    low, high = round(start * len(data)), round(end * len(data))
    data[low:high] = np.random.default_rng(seed).bytes(high - low)
    path.write_bytes(data)
    return path


def huge_header(path: Path, side: int = 16_000) -> Path:
    """A GIF of a few bytes whose header claims ``side`` × ``side`` pixels."""
    size = side.to_bytes(2, "little") * 2
    screen = b"GIF89a" + size + b"\x80\x00\x00" + bytes(6)
    image = b"\x2c" + bytes(4) + size + b"\x00" + b"\x02\x02\x4c\x01\x00"
    path.write_bytes(screen + image + b"\x3b")
    return path
