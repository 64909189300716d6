"""Decoders of a sample's members, chosen by the last part of the member's extension."""

from __future__ import annotations

import io
import json
import wave
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from unitalking_data.extras import missing_extra


def decode_video(data: bytes) -> np.ndarray:
    """uint8 RGB ``[frames, height, width, 3]`` of a published mp4: upright, constant frame rate.

    Raises:
        ValueError: it cannot be decoded.
        ImportError: the extra ``video`` is not installed.
    """
    try:
        import av
    except ModuleNotFoundError as error:
        if error.name != "av":
            raise
        raise missing_extra("video", "av", "decoding mp4") from None
    try:
        with av.open(io.BytesIO(data), "r", options={"format_whitelist": "mov"}) as container:
            container.streams.video[0].codec_context.thread_count = 1
            return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"no video can be decoded: {error}") from error


def decode_audio(data: bytes) -> np.ndarray:
    """float32 ``[channels, samples]`` in −1…1 of a published wav, 16-bit PCM.

    Raises:
        ValueError: it is not such a wav.
    """
    try:
        with wave.open(io.BytesIO(data)) as file:
            if file.getsampwidth() != 2:
                raise ValueError(f"the wav has {8 * file.getsampwidth()}-bit samples, 16 were expected")
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
            return samples.reshape(-1, file.getnchannels()).T.astype(np.float32) / 32767
    except (wave.Error, EOFError) as error:
        raise ValueError(f"no wav: {error}") from error


def decode_array(data: bytes) -> np.ndarray:
    """The array of an npy file; raises ValueError on pickled objects."""
    return np.load(io.BytesIO(data), allow_pickle=False)


RAW: Mapping[str, Callable[[bytes], Any]] = {}
DECODERS: Mapping[str, Callable[[bytes], Any]] = {
    "mp4": decode_video,
    "wav": decode_audio,
    "npy": decode_array,
    "json": json.loads,
}
