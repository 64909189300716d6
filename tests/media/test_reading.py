"""Whole files for a model: the right frame at each time, the audio at its rate, and clear refusals."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from media.clip import MediaError
from media.encode import write_video, write_wav
from media.reading import fit, read_audio, read_frames, read_image
from tests.media import factory


@pytest.mark.parametrize(("fps", "expected"), [(25, range(24)), (12.5, range(0, 24, 2)), (50, np.arange(48) // 2)])
def test_frames_are_those_a_player_shows(tmp_path, fps, expected):
    path = tmp_path / "a.mp4"
    write_video(path, factory.numbered(factory.regular(1, 25)), 25)
    numbers = [factory.number_of(image) for image in read_frames(str(path), fps=fps, frames=len(expected))]
    assert numbers == list(expected)


def test_a_video_that_is_too_short_is_refused(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, factory.numbered(factory.regular(1, 25)), 25)
    assert len(list(read_frames(str(path), fps=25, frames=25))) == 25
    with pytest.raises(MediaError, match=r"a\.mp4.*1\.00 s of video end before the 26 pictures"):
        list(read_frames(str(path), fps=25, frames=26))


@pytest.mark.parametrize("name", ["a.wav", "a.mp4"])
def test_audio_is_mono_at_the_rate_asked_for(tmp_path, name):
    path, rate = tmp_path / name, 44_100
    clicks = np.repeat(factory.clicks(1, [0.6], rate), 2, axis=0)
    if name == "a.wav":
        write_wav(path, clicks, rate)
    else:
        write_video(path, factory.numbered(factory.regular(1, 25)), 25, audio=clicks, audio_rate=rate)
    audio = read_audio(str(path), rate=16_000)
    assert audio.dtype == np.float32
    assert len(audio) == pytest.approx(16_000, abs=1024)
    assert np.abs(audio).argmax() / 16_000 == pytest.approx(0.6, abs=2e-3)


def test_image_reads_back(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image[..., ::-1])
    assert np.array_equal(read_image(str(tmp_path / "a.png")), image)


@pytest.mark.parametrize("read", [read_image, lambda uri: read_audio(uri, rate=16_000)])
@pytest.mark.parametrize("content", [b"", b"no media at all", None])
def test_other_files_are_refused_by_name(tmp_path, read, content):
    path = tmp_path / "note.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MediaError, match=r"note\.txt"):
        read(str(path))


def test_a_silent_video_has_no_audio(tmp_path):
    write_video(tmp_path / "a.mp4", factory.numbered(factory.regular(1, 25)), 25)
    with pytest.raises(MediaError, match="no sound"):
        read_audio(str(tmp_path / "a.mp4"), rate=16_000)


@pytest.mark.parametrize(("height", "width"), [(40, 40), (64, 16), (8, 80), (30, 60)])
def test_fit_covers_and_crops_about_the_centre(height, width):
    image = np.zeros((30, 60, 3), np.uint8)
    image[14:16, 29:31] = 255
    fitted = fit(image, width=width, height=height)
    assert fitted.shape == (height, width, 3)
    rows, columns = np.nonzero(fitted[..., 0] > 60)
    assert rows.mean() == pytest.approx((height - 1) / 2, abs=1)
    assert columns.mean() == pytest.approx((width - 1) / 2, abs=1)
