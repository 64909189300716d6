"""Frames kept as planes: grey without colour, the same as grey of the colours, however they are coded and turned."""

from __future__ import annotations

import gc

import av
import cv2
import numpy as np
import pytest

from media.decode import decode_clip
from media.planes import Planes
from tests.media import factory

SIZE = (64, 48)


def image(seed: int = 0) -> np.ndarray:
    """uint8 RGB [96, 128, 3]: smooth, grey, and different in every quarter."""
    rough = np.random.default_rng(seed).integers(0, 256, (3, 4, 1), np.uint8).repeat(3, 2)
    return cv2.resize(rough, (128, 96), interpolation=cv2.INTER_CUBIC)


def grid(path, tmp_path, **options) -> Planes:
    times = factory.regular(0.4, 25)
    file = factory.write(tmp_path / path, [image()] * len(times), times, **options)
    return decode_clip(str(file), 0.0, 0.4, needs=frozenset({"frames"})).planes


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuvj420p", "yuv444p", "yuv420p10le"])
@pytest.mark.parametrize("turn", [{}, {"rotation": 90}, {"rotation": 180, "mirrored": True}])
def test_grey_is_the_grey_of_the_colours(tmp_path, pixel_format, turn):
    planes = grid("a.mp4", tmp_path, pixel_format=pixel_format, options={"crf": "1"}, **turn)
    size = SIZE[::-1] if turn.get("rotation") == 90 else SIZE
    assert planes.size == (2 * size[0], 2 * size[1])
    colours = cv2.resize(cv2.cvtColor(planes.rgb()[0], cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)
    grey = planes.grey(0, size)
    assert grey.shape == size[::-1] and grey.std() > 10
    assert np.abs(grey.astype(int) - colours).max() <= 3


def test_arrays_serve_as_frames():
    planes = Planes(np.stack([image(0), image(1)]))
    assert len(planes) == 2 and planes.size == (128, 96)
    np.testing.assert_array_equal(planes.rgb()[1], image(1))
    assert planes.grey(1, SIZE).shape == SIZE[::-1]


def test_ticks_that_show_one_frame_share_it(tmp_path):
    times = factory.regular(0.8, 5)
    file = factory.write(tmp_path / "slow.mp4", factory.numbered(times), times)
    planes = decode_clip(str(file), 0.0, 0.4, needs=frozenset({"frames"})).planes
    assert len(planes) == 10 and len({id(shown) for shown in planes.frames}) == 2
    np.testing.assert_array_equal(planes.rgb()[0], planes.rgb()[4])


def test_nothing_to_show():
    assert Planes().rgb().shape == (0, 0, 0, 3) and Planes().size == (0, 0)


def test_nothing_waits_for_the_garbage_collector(tmp_path):
    """A frame in a reference cycle would hold its decoder's buffers, a hundred times its own size."""
    gc.collect()
    gc.disable()
    try:
        planes = grid("a.mp4", tmp_path)
        height = planes.frames[0].height
        del planes
        left = [thing for thing in gc.get_objects() if isinstance(thing, av.VideoFrame) and thing.height == height]
    finally:
        gc.enable()
    assert left == []
