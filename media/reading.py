"""Whole files for a model: frames at its frame rate and size, audio at its sample rate.

``decode_clip`` is for scoring clips in bulk, on a 25 fps grid; this is for the few files a request names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from media.clip import MediaError
from media.collect import TOLERANCE_S, AudioCollector
from media.geometry import Orientation
from media.open import BUFFER_BYTES, CONTAINERS, MAX_PIXELS, open_bytes, open_media, why
from media.planes import to_rgb
from media.resample import to_mono


def read_image(uri: str) -> np.ndarray:
    """uint8 RGB ``[h, w, 3]`` of a PNG, JPEG or WebP file, turned upright as its EXIF says.

    Raises:
        MediaError: no such file, or not an image.
        OSError: the storage failed.
    """
    with open_bytes(uri) as file:
        data = np.frombuffer(file.read(), np.uint8)
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    except cv2.error:
        image = None
    if image is None:
        raise MediaError(f"{uri!r}: not a picture that can be decoded (PNG, JPEG and WebP can)")
    return np.ascontiguousarray(image[..., ::-1])


def read_frames(uri: str, *, fps: float, frames: int) -> Iterator[np.ndarray]:
    """The first ``frames`` frames of a video at ``fps``: uint8 RGB ``[h, w, 3]`` each, as displayed.

    Frame *k* is what a player shows at ``k / fps`` seconds; where the file is slower, frames repeat.

    Raises:
        MediaError: the file is at fault, or its video ends before the last frame's time.
        OSError: the storage failed.
    """
    with open_media(uri) as media:
        media.video.codec_context.thread_count = 1
        tick, reformatter, orientation, shown, number = float(media.video.time_base), VideoReformatter(), None, None, 0
        end_s = 0.0
        try:
            for frame in media.container.decode(media.video):
                stamp = frame.pts if frame.pts is not None else frame.dts
                time_s = end_s if stamp is None else stamp * tick - media.origin_s
                while shown is not None and number < frames and number / fps < time_s - TOLERANCE_S:
                    yield shown
                    number += 1
                if number == frames:
                    return
                orientation = orientation or Orientation.of(frame, media.video.sample_aspect_ratio)
                shown = np.ascontiguousarray(to_rgb(reformatter, frame, orientation, orientation.fitted(1 << 30)))
                end_s = time_s + (frame.duration or 0) * tick
        except av.FFmpegError as error:
            raise MediaError(f"{uri!r}: cannot be decoded: {why(error)}") from error
    while shown is not None and number < frames and number / fps < max(end_s - TOLERANCE_S, TOLERANCE_S):
        yield shown
        number += 1
    if number < frames:
        raise MediaError(f"{uri!r}: its {end_s:.2f} s of video end before the {frames} pictures at {fps:g} fps needed")


def read_audio(uri: str, *, rate: int) -> np.ndarray:
    """float32 ``[n]`` in −1…1: the whole audio stream of an audio or video file as mono at ``rate`` Hz.

    Raises:
        MediaError: the file is at fault or has no audio.
        OSError: the storage failed.
    """
    with open_bytes(uri) as file:
        options = {"format_whitelist": ",".join(CONTAINERS), "max_pixels": str(MAX_PIXELS)}
        try:
            with av.open(file, options=options, buffer_size=BUFFER_BYTES, metadata_errors="replace") as container:
                stream = container.streams.best("audio")
                if stream is None:
                    raise MediaError(f"{uri!r}: no sound in it")
                parts = [frame for frame in container.decode(stream) if frame.samples]
        except av.FFmpegError as error:
            raise MediaError(f"{uri!r}: not an audio file that can be decoded ({why(error)})") from error
    if not parts:
        raise MediaError(f"{uri!r}: no sound in it")
    first = parts[0]
    seconds = math.fsum(part.samples / part.sample_rate for part in parts)
    collector = AudioCollector(seconds, first.sample_rate, first.layout.nb_channels, first.layout.name)
    for part in parts:
        collector.add(part, None)
    return to_mono(collector.audio, collector.rate, collector.layout, rate)


def fit(image: np.ndarray, *, width: int, height: int) -> np.ndarray:
    """An image scaled to cover ``width`` × ``height`` and cropped about its centre: uint8 ``[height, width, 3]``."""
    h, w = image.shape[:2]
    scale = max(width / w, height / h)
    size = max(width, round(w * scale)), max(height, round(h * scale))
    scaled = (
        image
        if size == (w, h)
        else cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    )
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return np.ascontiguousarray(scaled[top : top + height, left : left + width])
