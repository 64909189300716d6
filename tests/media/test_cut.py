"""Cuts at exact times, copied where they can be, and always the same bytes."""

from __future__ import annotations

import io
import tempfile
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from media.clip import MediaError
from media.cut import VideoFormat, cut_clip
from media.decode import decode_clip
from media.probe import probe
from tests.media import factory

FAST = VideoFormat(preset="ultrafast")
X264 = {"g": "25", "bf": "0", "preset": "ultrafast", "crf": "10", "threads": "1", "sc_threshold": "0"}


def decoded_frames(mp4: bytes) -> list[np.ndarray]:
    with av.open(io.BytesIO(mp4)) as file:
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]


def numbers(mp4: bytes) -> list[int]:
    return [factory.number_of(image) for image in decoded_frames(mp4)]


def samples_of(wav: bytes) -> tuple[np.ndarray, int]:
    with wave.open(io.BytesIO(wav)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, file.getnchannels()).T
        return samples / 32767, file.getframerate()


@pytest.fixture(scope="module")
def numbered(tmp_path_factory) -> Path:
    """Four seconds at 25 frames a second with a keyframe every second, clicks at 1.5 and 2.5 s."""
    times = factory.regular(4, 25)
    return factory.write(
        tmp_path_factory.mktemp("cut") / "numbered.mp4",
        factory.numbered(times),
        times,
        options=X264,
        audio=factory.clicks(4, [1.5, 2.5], channels=2),
    )


def test_a_cut_on_a_keyframe_is_a_copy(numbered):
    clip = cut_clip(str(numbered), 1.0, 3.0, FAST)
    assert clip.encoded_because == "" and numbers(clip.mp4) == list(range(25, 75))
    assert (clip.frames, clip.fps, clip.width, clip.height) == (50, 25.0, 128, 96)
    with av.open(str(numbered)) as source, av.open(io.BytesIO(clip.mp4)) as cut:
        originals = [bytes(packet) for packet in source.demux(video=0) if packet.size][25:75]
        assert [bytes(packet) for packet in cut.demux(video=0) if packet.size] == originals


def test_a_cut_elsewhere_is_encoded_and_exact(numbered):
    clip = cut_clip(str(numbered), 1.2, 2.6, FAST)
    assert clip.encoded_because == "cut between keyframes" and numbers(clip.mp4) == list(range(30, 65))


def test_copying_can_be_forbidden(numbered):
    clip = cut_clip(str(numbered), 1.0, 3.0, VideoFormat(preset="ultrafast", copy=False))
    assert clip.encoded_because == "asked for" and numbers(clip.mp4) == list(range(25, 75))


def test_another_rate(numbered):
    clip = cut_clip(str(numbered), 1.0, 3.0, VideoFormat(fps=24, preset="ultrafast"), audio_rate=16_000)
    assert clip.encoded_because == "frame rate" and clip.frames == 48 and clip.fps == 24
    assert numbers(clip.mp4) == [25 + int(k * 25 / 24 + 1e-6) for k in range(48)]
    assert clip.audio_rate == 16_000


@pytest.mark.parametrize("start_s", [1.0, 1.2])
def test_audio_begins_and_ends_with_the_frames(numbered, start_s):
    clip = cut_clip(str(numbered), start_s, 3.0, FAST)
    samples, rate = samples_of(clip.wav)
    assert (rate, len(samples), samples.shape[1]) == (44_100, 2, round(clip.frames / clip.fps * rate))
    loud = np.flatnonzero(np.abs(samples[0]) > 0.3) / rate
    assert loud[0] == pytest.approx(1.5 - start_s, abs=2e-3) and loud[-1] == pytest.approx(2.5 - start_s, abs=6e-3)
    info = probe_bytes(clip.mp4)
    assert info.audio_rate == 44_100 and abs(info.audio_delay_s) < 1e-3
    decoded = decode_bytes(clip.mp4, clip.frames / clip.fps)
    assert np.flatnonzero(np.abs(decoded.audio[0]) > 0.3)[0] / rate == pytest.approx(1.5 - start_s, abs=2e-3)


@pytest.mark.parametrize("shift_s", [-0.2, 0.12])
def test_audio_is_moved(numbered, shift_s):
    for start_s in (1.0, 0.0):
        clip = cut_clip(str(numbered), start_s, 3.0, FAST, audio_shift_s=shift_s)
        samples, rate = samples_of(clip.wav)
        assert samples.shape[1] == round(clip.frames / clip.fps * rate)
        first = np.flatnonzero(np.abs(samples[0]) > 0.3)[0] / rate
        assert first == pytest.approx(1.5 - start_s + shift_s, abs=2e-3)
        assert clip.encoded_because == ""


def test_the_same_bytes_every_time(numbered, tmp_path):
    other = tmp_path / "elsewhere.mp4"
    other.write_bytes(numbered.read_bytes())
    for start_s in (1.0, 1.2):
        clips = {cut_clip(str(path), start_s, 3.0, VideoFormat()) for path in (numbered, numbered, other, other)}
        assert len(clips) == 1
        assert b"Lavf" not in clips.pop().mp4  # no name of a muxer, whose version changes


def test_frames_that_need_later_ones_are_encoded(tmp_path):
    times = factory.regular(3, 25)
    options = {**X264, "bf": "3", "preset": "medium", "b-adapt": "0"}
    path = factory.write(tmp_path / "b.mp4", factory.numbered(times), times, options=options)
    reasons = {}
    for frames in range(40, 50):
        clip = cut_clip(str(path), 0.0, frames / 25, FAST)
        assert numbers(clip.mp4) == list(range(frames))
        reasons[frames] = clip.encoded_because
    assert set(reasons.values()) == {"", "last pictures need later ones"}
    clip = cut_clip(str(path), 1.0, 3.0, FAST)
    assert clip.encoded_because == "" and numbers(clip.mp4) == list(range(25, 75))


def test_odd_rotated_and_stretched_frames_are_set_right(tmp_path):
    times = factory.regular(1, 25)
    drawn = factory.numbered(times)
    odd = factory.write(tmp_path / "odd.mp4", [p[:95, :127] for p in drawn], times, pixel_format="yuv444p")
    clip = cut_clip(str(odd), 0, 1, FAST)
    assert (
        (clip.width, clip.height) == (126, 94)
        and clip.encoded_because == "format"
        and numbers(clip.mp4) == [*range(25)]
    )
    turned = factory.write(tmp_path / "turned.mp4", drawn, times, rotation=90, options=X264)
    clip = cut_clip(str(turned), 0, 1, FAST)
    assert (clip.width, clip.height) == (96, 128) and "rotated" in clip.encoded_because
    shown = decode_clip(str(turned), 0, 1, needs=frozenset({"frames"})).frames
    assert np.abs(np.asarray(decoded_frames(clip.mp4), int) - shown).mean() < 3
    wide = factory.write(tmp_path / "wide.mp4", drawn, times, pixel_aspect=Fraction(2), options=X264)
    clip = cut_clip(str(wide), 0, 1, FAST)
    assert (clip.width, clip.height) == (256, 96) and numbers(clip.mp4) == [*range(25)]


def test_a_variable_rate_becomes_constant(tmp_path):
    times = factory.uneven(3)
    path = factory.write(tmp_path / "uneven.mp4", factory.numbered(times), times, options=X264)
    clip = cut_clip(str(path), 0, 2, FAST)
    assert clip.encoded_because == "variable frame rate"
    grid = np.arange(clip.frames) / clip.fps
    assert numbers(clip.mp4) == (np.searchsorted(times, grid + 1e-3, side="right") - 1).tolist()
    assert clip.frames == pytest.approx(2 * clip.fps, abs=1)


@pytest.mark.parametrize("name", ["a.mkv", "a.ts"])
def test_other_containers(tmp_path, name):
    times = factory.regular(2, 25)
    path = factory.write(tmp_path / name, factory.numbered(times), times, options=X264, audio=factory.clicks(2, [1.5]))
    clip = cut_clip(str(path), 1.0, 2.0, FAST)
    assert numbers(clip.mp4) == list(range(25, 50))
    first = np.flatnonzero(np.abs(samples_of(clip.wav)[0][0]) > 0.2)[0] / clip.audio_rate
    assert first == pytest.approx(0.5, abs=3e-3)


def test_without_audio_and_with_many_channels(tmp_path):
    times = factory.regular(1, 25)
    clip = cut_clip(str(factory.write(tmp_path / "a.mp4", factory.numbered(times), times)), 0, 1, FAST)
    assert clip.wav is None and (clip.audio_rate, clip.audio_channels) == (0, 0)
    path = factory.write(tmp_path / "b.mp4", factory.numbered(times), times, audio=factory.clicks(1, [0.5], channels=8))
    clip = cut_clip(str(path), 0, 1, FAST)
    assert clip.audio_channels == 1 and np.abs(samples_of(clip.wav)[0]).max() > 0.3


def test_bad_input(numbered, tmp_path):
    with pytest.raises(MediaError, match="no such file"):
        cut_clip(str(tmp_path / "none.mp4"), 0, 1, FAST)
    with pytest.raises(MediaError, match=r"only .* can be decoded"):
        cut_clip(str(numbered), 1.2, 30.0, FAST)
    damaged = factory.scrambled(numbered, tmp_path / "damaged.mp4", 0.2, 0.6)
    with pytest.raises(MediaError):
        cut_clip(str(damaged), 0.5, 3.5, FAST)


def probe_bytes(mp4: bytes):
    return _on_disk(mp4, probe)


def decode_bytes(mp4: bytes, seconds: float):
    return _on_disk(mp4, lambda path: decode_clip(path, 0, seconds, needs=frozenset({"audio"})))


def _on_disk(mp4: bytes, use):
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        file.write(mp4)
        file.flush()
        return use(file.name)
