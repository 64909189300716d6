from __future__ import annotations

import base64
import math
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from curation.report.thumbnails import (
    BOX,
    COLUMNS,
    FRAMES,
    WAVE_HEIGHT,
    ClipRef,
    frame_strip,
    thumbnail,
    waveform_path,
)
from media.clip import MediaError


def strip_of(sprite: str) -> np.ndarray:
    data = base64.b64decode(sprite.removeprefix("data:image/webp;base64,"))
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def test_a_thumbnail_moves_with_the_clip_and_is_small(talker: Path) -> None:
    image = thumbnail(ClipRef(str(talker), 0.0, 4.0))
    strip = strip_of(image.sprite)
    assert strip.shape == (image.height, image.width * FRAMES, 3)
    assert image.width <= BOX[0] and image.height <= BOX[1]
    blue = [strip[:, i * image.width : (i + 1) * image.width, 0].mean() for i in range(FRAMES)]
    assert (np.diff(blue) > 5).all()
    assert len(image.sprite) < 60_000
    assert image.peak_dbfs == pytest.approx(-6, abs=1.5)


def test_the_waveform_follows_the_sound(talker: Path) -> None:
    image = thumbnail(ClipRef(str(talker), 0.0, 4.0))
    strokes = [tuple(map(float, stroke)) for stroke in re.findall(r"M([\d.]+) ([\d.]+)V([\d.]+)", image.waveform)]
    assert len(strokes) == COLUMNS
    heights = [low - high for _, high, low in strokes]
    assert heights[10] < heights[60] < heights[110]
    assert all(0 <= high <= low <= WAVE_HEIGHT for _, high, low in strokes)


def test_bad_media_name_their_fault(tmp_path: Path) -> None:
    fake = tmp_path / "text.mp4"
    fake.write_text("not a video")
    with pytest.raises(MediaError):
        thumbnail(ClipRef(str(fake), 0.0, 1.0))


@pytest.mark.parametrize("shape", [(90, 160), (160, 90), (1, 999), (130, 208)])
def test_every_shape_fits_the_box(shape: tuple[int, int]) -> None:
    strip = frame_strip(np.zeros((3, *shape, 3), np.uint8))
    assert strip.shape[0] <= BOX[1] and strip.shape[1] <= BOX[0] * FRAMES


def test_silence_no_samples_and_a_few_samples() -> None:
    assert waveform_path(np.zeros((1, 0), np.float32)) == ""
    assert waveform_path(np.zeros((2, 7), np.float32)).count("M") == 7
    assert math.isclose(float(waveform_path(np.ones((1, 500), np.float32)).split("V")[0].split()[1]), 0)
