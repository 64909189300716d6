"""Every kind of broken or unusual file is read right or refused with one clear message."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from media.clip import MediaError
from media.decode import decode_clip
from media.encode import write_video, write_wav
from media.probe import content_hash, probe
from tests.media import factory

ALL = frozenset({"frames", "stills", "audio"})


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """Three seconds of 25 fps in GOPs of 12 with audio, the index at the end of the file."""
    times = factory.regular(3, 25)
    return factory.write(
        tmp_path_factory.mktemp("plain") / "plain.mp4",
        factory.flashes(times, [1.6]),
        times,
        options={"g": "12"},
        audio=factory.clicks(3, [1.6]),
    )


@pytest.fixture(scope="module")
def index_first(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("first") / "index_first.mp4"
    noise = np.random.default_rng(0).integers(0, 256, (75, 96, 128, 3), np.uint8)
    write_video(path, noise, 25)
    return path


def refused(uri: Path | str) -> str:
    """The message, the same from probe and decode."""
    with pytest.raises(MediaError) as probed:
        probe(str(uri))
    with pytest.raises(MediaError) as decoded:
        decode_clip(str(uri), 0.0, 1.0, needs=ALL)
    assert str(probed.value) == str(decoded.value)
    assert repr(str(uri)) in str(probed.value)
    assert "\n" not in str(probed.value)
    return str(probed.value)


def test_missing_file(tmp_path):
    assert "no such file" in refused(tmp_path / "absent.mp4")
    with pytest.raises(MediaError, match="no such file"):
        content_hash(str(tmp_path / "absent.mp4"))


def test_folder(tmp_path):
    assert "no such file" in refused(tmp_path)


def test_unreadable_file(tmp_path, plain, monkeypatch):
    path = tmp_path / "secret.mp4"
    path.write_bytes(plain.read_bytes())
    path.chmod(0)
    if os.access(path, os.R_OK):  # root reads everything

        def denied(self: Path, *args: object) -> None:
            raise PermissionError(13, "Permission denied", str(self))

        monkeypatch.setattr(Path, "open", denied)
    assert "permission denied" in refused(path)


def test_empty_file(tmp_path):
    (tmp_path / "empty.mp4").touch()
    assert "empty" in refused(tmp_path / "empty.mp4")


def test_null_byte_in_name():
    assert "not a path" in refused("a\0b.mp4")


@pytest.mark.parametrize(
    "text",
    ["hello, this is not a video\n" * 50, "x", "<html><script>alert(1)</script></html>"],
    ids=["prose", "one byte", "html"],
)
def test_text_named_mp4(tmp_path, text):
    path = tmp_path / "text.mp4"
    path.write_text(text)
    assert "not a video file" in refused(path)


@pytest.mark.parametrize(
    "playlist",
    ["#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile '{}'\n"],
    ids=["hls", "concat"],
)
def test_playlist_opens_no_other_file(tmp_path, plain, playlist):
    path = tmp_path / "list.mp4"
    path.write_text(playlist.format(plain))
    assert "not a video file" in refused(path)


def test_truncated_before_the_index(tmp_path, plain):
    path = factory.truncated(plain, tmp_path / "cut.mp4", 0.6)
    assert "index (moov) is missing" in refused(path)


def test_truncated_in_the_middle(tmp_path, index_first):
    path = factory.truncated(index_first, tmp_path / "cut.mp4", 0.5)
    duration_s = probe(str(path)).duration_s
    assert duration_s == pytest.approx(3.0)
    with pytest.raises(MediaError, match=r"only 1\.\d\d of the clip's 3\.00 s"):
        decode_clip(str(path), 0.0, duration_s, needs=ALL)
    assert decode_clip(str(path), 0.0, 1.0, needs=ALL).frames.shape[0] == 25
    with pytest.raises(MediaError):
        decode_clip(str(path), 2.0, 3.0, needs=ALL)


def test_damage_that_leaves_nine_tenths_is_tolerated(tmp_path, index_first):
    path = factory.truncated(index_first, tmp_path / "cut.mp4", 0.96)
    media = decode_clip(str(path), 0.0, 3.0, needs=ALL)
    assert media.frames.shape[0] == 75
    np.testing.assert_array_equal(media.frames[-1], media.frames[-2])


def test_noise_in_the_middle_never_escapes(tmp_path, index_first):
    for seed in range(5):
        path = factory.scrambled(index_first, tmp_path / f"{seed}.mp4", 0.3, 0.8, seed)
        try:
            assert decode_clip(str(path), 0.0, 3.0, needs=ALL).frames.shape[0] == 75
        except MediaError as error:
            assert str(path) in str(error)


def test_no_video_stream(tmp_path):
    write_wav(tmp_path / "audio.mp4", np.zeros(8000, np.float32), 8000)
    assert "no video stream (the file holds: audio)" in refused(tmp_path / "audio.mp4")


def test_no_audio_stream(tmp_path):
    times = factory.regular(1, 25)
    path = str(factory.write(tmp_path / "silent.mp4", factory.flashes(times, [0.4]), times))
    info = probe(path)
    assert (info.audio_tracks, info.audio_rate, info.audio_channels, info.audio_codec) == (0, 0, 0, "")
    media = decode_clip(path, 0.0, 1.0, needs=ALL)
    assert not media.has_audio
    assert media.audio.shape == (0, 0)
    assert media.speech.shape == (0,)
    assert media.frames.shape[0] == 25


def test_zero_length_audio(tmp_path):
    times = factory.regular(1, 25)
    path = factory.write(
        tmp_path / "declared.mkv", factory.flashes(times, [0.4]), times, silent_track=True, audio_codec="pcm_s16le"
    )
    assert probe(str(path)).audio_tracks == 1
    media = decode_clip(str(path), 0.0, 1.0, needs=ALL)
    assert media.audio_rate == 44_100
    assert media.audio.shape == (1, 44_100)
    assert not media.audio.any()
    assert media.speech.shape == (16_000,)


def test_one_frame(tmp_path):
    path = tmp_path / "one.mp4"
    write_video(path, factory.flashes([0.0], []), 25)
    assert probe(str(path)).duration_s == pytest.approx(0.04)
    media = decode_clip(str(path), 0.0, 0.04, needs=ALL)
    assert media.frames.shape == (1, 96, 128, 3)
    assert len(media.stills) == 6
    assert media.decoded_frames == 1


@pytest.mark.parametrize("side", [16_000, 65_535])
def test_absurd_dimensions_are_refused(tmp_path, side):
    assert "over the limit of 67108864 pixels" in refused(factory.huge_header(tmp_path / "huge.mp4", side))


def test_ten_bit_hevc(tmp_path):
    times = factory.regular(1, 25)
    path = factory.write(
        tmp_path / "ten.mp4",
        factory.flashes(times, [0.4]),
        times,
        codec="libx265",
        pixel_format="yuv420p10le",
        options={"x265-params": "log-level=none:pools=none", "preset": "ultrafast"},
    )
    info = probe(str(path))
    assert (info.video_codec, info.pixel_format, info.bit_depth) == ("hevc", "yuv420p10le", 10)
    media = decode_clip(str(path), 0.0, 1.0, needs=ALL)
    assert media.frames.mean((1, 2, 3)).argmax() == 10
    assert media.frames[10].mean() > 250


@pytest.mark.parametrize("size", [(127, 95), (1, 1), (33, 16), (3, 200)])
def test_odd_sizes(tmp_path, size):
    times = factory.regular(0.4, 25)
    path = factory.write(
        tmp_path / "odd.mkv", factory.flashes(times, [0.2], size), times, codec="ffv1", pixel_format="yuv444p"
    )
    info = probe(str(path))
    assert (info.width, info.height) == size
    media = decode_clip(str(path), 0.0, 0.4, needs=ALL, frame_side=100)
    assert media.stills[0].shape == (size[1], size[0], 3)
    assert max(media.frames.shape[1:3]) == min(100, max(size))
    assert media.frames.mean((1, 2, 3)).argmax() == 5


@pytest.mark.parametrize(("rotation", "clockwise"), [(0, 0), (90, 270), (180, 180), (270, 90)])
@pytest.mark.parametrize("mirrored", [False, True])
def test_rotated_and_mirrored(tmp_path, rotation, clockwise, mirrored):
    image = np.zeros((96, 128, 3), np.uint8)
    image[:24, :24] = (255, 0, 0)
    path = factory.write(
        tmp_path / "turned.mp4", [image] * 5, factory.regular(0.2, 25), rotation=rotation, mirrored=mirrored
    )
    expected = np.rot90(image, rotation // 90)
    expected = expected[:, ::-1] if mirrored else expected
    info = probe(str(path))
    assert (info.height, info.width) == expected.shape[:2]
    if not mirrored:
        assert info.rotation == clockwise
    media = decode_clip(str(path), 0.0, 0.2, needs=ALL)
    assert (media.height, media.width) == expected.shape[:2]
    for shown in (media.frames[2], media.stills[0]):
        assert shown.shape == expected.shape
        assert np.abs(shown.astype(int) - expected).mean() < 5


def test_pixels_that_are_not_square(tmp_path):
    times = factory.regular(0.2, 25)
    path = factory.write(tmp_path / "wide.mp4", factory.flashes(times, []), times, pixel_aspect=Fraction(4, 3))
    info = probe(str(path))
    assert (info.width, info.height) == (171, 96)
    assert decode_clip(str(path), 0.0, 0.2, needs=ALL).stills[0].shape == (96, 171, 3)


def test_variable_frame_rate_is_noticed(tmp_path):
    times = factory.uneven(3)
    path = factory.write(tmp_path / "vfr.mp4", factory.flashes(times, []), times)
    info = probe(str(path))
    assert info.variable_rate
    assert info.fps == pytest.approx(len(times) / 3, rel=0.03)


@pytest.mark.parametrize("fps", [10, 12, 24000 / 1001, 25, 30000 / 1001, 50, 120])
@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_constant_frame_rates_are_not_variable(tmp_path, fps, ending):
    times = factory.regular(1, fps)
    path = factory.write(tmp_path / f"cfr.{ending}", factory.flashes(times, []), times)
    info = probe(str(path))
    assert not info.variable_rate
    assert info.fps == pytest.approx(fps, rel=0.011)


@pytest.mark.parametrize(
    ("rate", "channels", "codec", "ending"),
    [
        (8000, 1, "aac", "mp4"),
        (48_000, 8, "aac", "mp4"),
        (48_000, 6, "aac", "mp4"),
        (44_100, 2, "pcm_s16le", "mkv"),
        (96_000, 2, "pcm_s32le", "mkv"),
        (16_000, 1, "pcm_u8", "mkv"),
        (48_000, 8, "pcm_f32le", "mkv"),
    ],
)
def test_audio_formats(tmp_path, rate, channels, codec, ending):
    times = factory.regular(1, 25)
    path = factory.write(
        tmp_path / f"audio.{ending}",
        factory.flashes(times, []),
        times,
        audio=factory.clicks(1, [0.6], rate, channels),
        audio_rate=rate,
        audio_codec=codec,
    )
    info = probe(str(path))
    assert (info.audio_rate, info.audio_channels, info.audio_codec) == (rate, channels, codec)
    media = decode_clip(str(path), 0.0, 1.0, needs=ALL)
    assert media.audio.shape == (channels, rate)
    assert media.speech.shape == (16_000,)
    peak = np.abs(media.audio).argmax(1) / rate
    loud = [c for c in range(channels) if not (channels in (6, 8) and c == 3)]  # AAC drops the effects channel's highs
    np.testing.assert_allclose(peak[loud], 0.6, atol=1e-3)
    assert np.abs(media.speech).argmax() / 16_000 == pytest.approx(0.6, abs=1e-3)
    if codec != "aac":
        assert np.abs(media.audio).max() == pytest.approx(0.9, abs=0.02)


NAMES = ["with space.mp4", 'it\'s "quoted".mp4', "two\nlines.mp4", "<script>alert(1)</script>.mp4", "a:b%03d?#[x]*.mp4"]


@pytest.mark.parametrize("name", [*NAMES, "pipe:0", "-i.mp4", "Ünïcødé 話.mp4"])
def test_names(tmp_path, plain, name, monkeypatch):
    path = tmp_path / name.replace("/", "∕")
    path.write_bytes(plain.read_bytes())
    assert probe(str(path)) == probe(str(plain))
    assert content_hash(str(path)) == content_hash(str(plain))
    monkeypatch.chdir(tmp_path)
    assert decode_clip(path.name, 0.0, 0.2, needs=ALL).frames.shape[0] == 5


def test_undecodable_bytes_in_name(tmp_path, plain):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.mp4")
    Path(path).write_bytes(plain.read_bytes())
    assert probe(path) == probe(str(plain))


def test_interval_outside_the_file(plain):
    with pytest.raises(MediaError, match=r"only 0\.00 of the clip's 1\.00 s"):
        decode_clip(str(plain), 5.0, 6.0, needs=ALL)
    for start, end in ((1.0, 1.0), (2.0, 1.0), (-1.0, 1.0), (float("nan"), 1.0), (0.0, float("inf"))):
        with pytest.raises(MediaError, match="there is no clip"):
            decode_clip(str(plain), start, end, needs=ALL)
