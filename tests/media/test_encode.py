"""What is written reads back as it was meant, and a file appears whole or not at all."""

from __future__ import annotations

import wave
from fractions import Fraction

import numpy as np
import pytest

from media.decode import decode_clip
from media.encode import write_png, write_video, write_wav
from media.probe import probe
from media.reading import read_image
from media.resample import resample
from tests.media import factory

BOTH = frozenset({"frames", "audio"})


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_video_reads_back(tmp_path, codec):
    times = factory.regular(1, 25)
    path = tmp_path / "a.mp4"
    write_video(path, factory.numbered(times), 25, codec=codec, audio=factory.clicks(1, [0.6])[0], audio_rate=44_100)
    info = probe(str(path))
    assert (info.video_codec, info.fps, info.duration_s) == (codec, 25, pytest.approx(1.0))
    media = decode_clip(str(path), 0.0, 1.0, needs=BOTH)
    assert [factory.number_of(frame) for frame in media.frames] == list(range(25))
    assert np.abs(media.audio[0]).argmax() / 44_100 == pytest.approx(0.6, abs=1e-3)
    assert path.read_bytes().find(b"moov") < path.read_bytes().find(b"mdat")


@pytest.mark.parametrize("fps", [25, 30000 / 1001, Fraction(24000, 1001), 12.5])
def test_frame_rates(tmp_path, fps):
    write_video(tmp_path / "a.mp4", factory.numbered(range(30)), fps)
    info = probe(str(tmp_path / "a.mp4"))
    assert info.fps == pytest.approx(float(fps), rel=1e-6)
    assert info.duration_s == pytest.approx(30 / float(fps), abs=1e-3)


@pytest.mark.parametrize("delay_s", [1.0, 0.04, 0.0, -0.2])
def test_audio_delay_moves_the_audio(tmp_path, delay_s):
    path = tmp_path / "a.mp4"
    frames = factory.numbered(factory.regular(2, 25))
    write_video(path, frames, 25, audio=factory.clicks(2, [0.6]), audio_rate=44_100, audio_delay_s=delay_s)
    media = decode_clip(str(path), 0.0, 2.0, needs=BOTH)
    assert np.abs(media.audio[0]).argmax() / 44_100 == pytest.approx(0.6 + delay_s, abs=1e-3)


@pytest.mark.parametrize(("channels", "rate"), [(1, 8000), (2, 44_100), (6, 48_000), (8, 48_000), (1, 18_000)])
def test_audio_formats(tmp_path, channels, rate):
    path = tmp_path / "a.mp4"
    frames = factory.numbered(factory.regular(1, 25))
    write_video(path, frames, 25, audio=factory.clicks(1, [0.5], rate, channels), audio_rate=rate)
    info = probe(str(path))
    assert info.audio_channels == channels
    assert info.audio_rate == (rate if rate != 18_000 else 48_000)


def test_odd_sizes_are_made_even(tmp_path):
    write_video(tmp_path / "a.mp4", factory.flashes([0, 1, 2], [], (33, 17)), 25)
    info = probe(str(tmp_path / "a.mp4"))
    assert (info.width, info.height) == (34, 18)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, factory.numbered(range(5)), 25)
    before = path.read_bytes()

    def breaking():
        yield from factory.numbered(range(3))
        raise RuntimeError("renderer failed")

    with pytest.raises(RuntimeError, match="renderer failed"):
        write_video(path, breaking(), 25)
    with pytest.raises(ValueError, match="frame 1 is"):
        write_video(path, [np.zeros((16, 16, 3), np.uint8), np.zeros((18, 16, 3), np.uint8)], 25)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"frames": []}, "no frames"),
        ({"codec": "vp8"}, "vp8"),
        ({"audio": np.zeros(100, np.float32)}, "come together"),
        ({"audio": np.zeros((3, 100), np.float32), "audio_rate": 16_000}, "3 audio channels"),
    ],
)
def test_wrong_arguments(tmp_path, arguments, message):
    call = {"frames": factory.numbered(range(2)), "fps": 25} | arguments
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / "a.mp4", **call)
    assert not any(tmp_path.iterdir())


def test_wav(tmp_path):
    audio = np.array([[0.0, 0.5, -0.5, 2.0, -2.0]], np.float32)
    write_wav(tmp_path / "a.wav", np.concatenate([audio, -audio]), 16_000)
    with wave.open(str(tmp_path / "a.wav")) as read:
        assert (read.getnchannels(), read.getframerate(), read.getsampwidth()) == (2, 16_000, 2)
        samples = np.frombuffer(read.readframes(10), "<i2").reshape(-1, 2).T
    np.testing.assert_array_equal(samples[0], [0, 16384, -16384, 32767, -32768])


@pytest.mark.parametrize(("rate", "new_rate"), [(44_100, 16_000), (8000, 16_000), (48_000, 44_100), (16_000, 16_000)])
def test_resample_keeps_time_and_level(rate, new_rate):
    t, new_t = np.arange(rate) / rate, np.arange(new_rate) / new_rate
    tone = np.sin(2 * np.pi * 440 * t).astype(np.float32)
    result = resample(tone, rate, new_rate)
    assert result.shape == (new_rate,)
    inner = slice(new_rate // 20, -new_rate // 20)
    np.testing.assert_allclose(result[inner], np.sin(2 * np.pi * 440 * new_t)[inner], atol=5e-3)
    both = resample(np.stack([tone, -tone]), rate, new_rate)
    np.testing.assert_allclose(both[0], -both[1], atol=1e-6)


def test_resample_of_nothing():
    assert resample(np.zeros(0, np.float32), 44_100, 16_000).shape == (0,)


def test_a_png_is_its_image(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    write_png(tmp_path / "a.png", image)
    np.testing.assert_array_equal(read_image(str(tmp_path / "a.png")), image)
