"""Write media files: each appears whole or not at all."""

from __future__ import annotations

import os
import tempfile
import wave
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import cv2
import numpy as np

from media.resample import packed_frame, resample

ENCODERS = {"h264": "libx264", "hevc": "libx265"}
AAC_RATES = (7350, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
# Vector code of x264's macroblock tree gives other bytes now and then, in one thread and from the same frames.
REPRODUCIBLE = {"h264": {"x264-params": "cpu-independent=1"}, "hevc": {}}
AUDIO_BLOCK = 1 << 16
# The default clock of edit lists, 1 ms, would misplace late audio by up to half of it.
MUXER = {"movflags": "faststart", "movie_timescale": "90000"}


def write_video(
    path: str | os.PathLike[str],
    frames: Iterable[np.ndarray],
    fps: float | Fraction,
    *,
    audio: np.ndarray | None = None,
    audio_rate: int | None = None,
    audio_delay_s: float = 0.0,
    codec: str = "h264",
    crf: float = 20,
    preset: str = "veryfast",
) -> None:
    """Encode an mp4 with its index in front.

    Args:
        path: local file to write, replaced atomically.
        frames: uint8 RGB ``[h, w, 3]`` each, all of one size. An odd side is made even by repeating its last line,
            as 4:2:0 needs.
        fps: frames per second.
        audio: float32 ``[n]`` or ``[channels, n]`` in −1…1, encoded as AAC; ``audio_rate`` in Hz.
        audio_delay_s: how much later than the video the audio begins; if negative, its start is cut away.
        codec: ``h264`` or ``hevc``.
        crf: constant rate factor of the encoder, 0–51, lower is better.
        preset: speed of the encoder.

    Raises:
        ValueError: no frames, sizes that differ, an unknown codec, or audio without a rate.
    """
    if codec not in ENCODERS:
        raise ValueError(f"codec {codec!r} is not one of {', '.join(ENCODERS)}")
    if (audio is None) != (audio_rate is None):
        raise ValueError("audio and audio_rate come together")
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise ValueError(f"{path}: no frames to write")
    with replacing(path) as temporary, av.open(temporary, "w", format="mp4", options=MUXER) as out:
        video = out.add_stream(ENCODERS[codec], rate=Fraction(fps).limit_denominator(1001))
        height, width = first.shape[:2]
        video.height, video.width, video.pix_fmt = height + height % 2, width + width % 2, "yuv420p"
        video.options = {"crf": str(crf), "preset": preset, **REPRODUCIBLE[codec]}
        video.codec_context.thread_count = 1
        track = AudioTrack(out, audio, audio_rate, audio_delay_s) if audio is not None else None
        for index, image in enumerate(chain([first], iterator)):
            if image.shape != first.shape or image.dtype != np.uint8:
                raise ValueError(f"{path}: frame {index} is {image.dtype} {image.shape}, not uint8 {first.shape}")
            frame = av.VideoFrame.from_ndarray(_even(image), format="rgb24")
            out.mux(video.encode(frame))
            if track is not None:
                track.write_until((index + 1) / float(fps))
        out.mux(video.encode(None))
        if track is not None:
            track.finish()


def write_wav(path: str | os.PathLike[str], audio: np.ndarray, rate: int) -> None:
    """16-bit PCM of float32 ``[n]`` or ``[channels, n]`` in −1…1 (clipped), replaced atomically."""
    samples = np.atleast_2d(audio)
    pcm = np.clip(np.round(samples * 32767), -32768, 32767).astype("<i2")
    with replacing(path) as temporary, wave.open(temporary, "wb") as out:
        out.setnchannels(len(pcm))
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(np.ascontiguousarray(pcm.T).tobytes())


def write_png(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """uint8 RGB ``[h, w, 3]``, without loss; replaced atomically."""
    _, data = cv2.imencode(".png", image[..., ::-1])
    with replacing(path) as temporary:
        Path(temporary).write_bytes(data.tobytes())


class AudioTrack:
    """AAC beside the video, written as far as the video has got so that the two interleave."""

    def __init__(self, out: av.container.OutputContainer, audio: np.ndarray, rate: int, delay_s: float) -> None:
        samples = np.atleast_2d(np.asarray(audio, np.float32))
        if len(samples) not in LAYOUTS:
            raise ValueError(f"{len(samples)} audio channels; {', '.join(map(str, LAYOUTS))} can be written")
        if rate not in AAC_RATES:
            samples, rate = resample(samples, rate, 48_000), 48_000
        self._samples = samples[:, max(0, round(-delay_s * rate)) :]
        self._offset = max(0, round(delay_s * rate))
        self._rate, self._layout = rate, LAYOUTS[len(samples)]
        self._out, self._next = out, 0
        self._stream = out.add_stream("aac", rate=rate, layout=self._layout)

    def write_until(self, time_s: float) -> None:
        self._write(min(self._samples.shape[1], round(time_s * self._rate) - self._offset))

    def finish(self) -> None:
        self._write(self._samples.shape[1])
        self._out.mux(self._stream.encode(None))

    def _write(self, end: int) -> None:
        for start in range(self._next, end, AUDIO_BLOCK):
            block = self._samples[:, start : min(start + AUDIO_BLOCK, end)]
            frame = packed_frame(block, self._rate, self._layout)
            frame.pts, frame.time_base = start + self._offset, Fraction(1, self._rate)
            self._out.mux(self._stream.encode(frame))
            self._next = start + block.shape[1]


def _even(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    if height % 2 or width % 2:
        return np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return np.ascontiguousarray(image)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[str]:
    """A temporary name in the folder of ``path``, renamed to it on success and removed otherwise."""
    path = Path(path).absolute()
    handle, temporary = tempfile.mkstemp(prefix=".writing-", dir=path.parent)
    os.close(handle)
    try:
        yield temporary
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)
