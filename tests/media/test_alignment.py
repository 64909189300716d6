"""A flash and a click at known times are found at the same place of the grid, whatever the file looks like."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from media.clip import ClipMedia, MediaError
from media.decode import decode_clip
from media.probe import probe
from tests.media import factory

BOTH = frozenset({"frames", "audio"})
FLASHES_S = (0.6, 1.6, 2.36)
B_FRAMES = {"bf": "3", "g": "30", "b-adapt": "0", "b-pyramid": "normal"}


def marks(media: ClipMedia, start_s: float) -> tuple[list[float], list[float], list[float]]:
    """Times in the file of the flashes, and of the clicks in ``audio`` and in ``speech``."""
    white = np.flatnonzero(media.frames.mean((1, 2, 3)) > 200)
    first = white[np.diff(white, prepend=-2) > 1]
    return (
        [round(start_s + k / 25, 4) for k in first],
        [start_s + n / media.audio_rate for n in onsets(np.abs(media.audio).max(0), media.audio_rate)],
        [start_s + n / 16_000 for n in onsets(np.abs(media.speech), 16_000)],
    )


def onsets(level: np.ndarray, rate: int) -> list[int]:
    loud = np.flatnonzero(level > 0.3)
    return loud[np.diff(loud, prepend=-rate) > 0.1 * rate].tolist()


def chirp(seconds: float, first_hz: float, last_hz: float) -> np.ndarray:
    t = np.arange(round(seconds * 44_100)) / 44_100
    phase = first_hz * t + (last_hz - first_hz) * t**2 / (2 * seconds)
    return (0.5 * np.sin(2 * np.pi * phase)).astype(np.float32)


VARIANTS = {
    "plain": {},
    "B-frames": {"options": B_FRAMES},
    "no B-frames": {"options": {"bf": "0", "g": "10"}},
    "open GOP": {"options": {"bf": "3", "g": "10", "x264-params": "open-gop=1"}},
    "late audio": {"audio_start_s": 1.0, "options": B_FRAMES},
    "mpeg4": {"codec": "mpeg4", "options": {"g": "15"}},
}
CONTAINERS = ("mp4", "mkv", "ts", "mov", "flv")


@pytest.mark.parametrize("ending", CONTAINERS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_flash_and_click_coincide(tmp_path, variant, ending):
    if (variant, ending) == ("mpeg4", "flv"):
        pytest.skip("flv holds no mpeg4")
    given_options = VARIANTS[variant]
    times = factory.regular(3, 25)
    late_s = given_options.get("audio_start_s", 0.0)
    path = factory.write(
        tmp_path / f"a.{ending}",
        factory.flashes(times, FLASHES_S),
        times,
        audio=factory.clicks(3 - late_s, [t - late_s for t in FLASHES_S if t > late_s]),
        **given_options,
    )
    clicks = [t for t in FLASHES_S if t > late_s]
    for start_s, end_s in ((0.0, 3.0), (0.52, 2.8), (1.2, 2.6)):
        media = decode_clip(str(path), start_s, end_s, needs=BOTH)
        flash, click, speech = marks(media, start_s)
        assert flash == [t for t in FLASHES_S if start_s <= t < end_s]
        np.testing.assert_allclose(click, [t for t in clicks if start_s <= t < end_s], atol=1.5e-3)
        np.testing.assert_allclose(speech, click, atol=1e-3)
        if late_s:
            silent = media.audio[:, : max(0, round((late_s - 0.05 - start_s) * media.audio_rate))]
            assert not silent.any()
    if late_s:
        assert probe(str(path)).audio_delay_s == pytest.approx(late_s, abs=0.03)  # less the codec's 1,024 samples
        assert decode_clip(str(path), 0.0, 1.0, needs=BOTH).audio_delay_s == pytest.approx(late_s, abs=0.03)


def test_audio_before_the_video_is_cut(tmp_path):
    times = factory.regular(2, 25) + 0.5
    path = factory.write(tmp_path / "early.mkv", factory.flashes(times, [1.5]), times, audio=factory.clicks(2.5, [1.5]))
    assert probe(str(path)).audio_delay_s == pytest.approx(-0.5, abs=0.03)
    flash, click, _ = marks(decode_clip(str(path), 0.0, 2.0, needs=BOTH), 0.0)
    assert flash == [1.0]
    np.testing.assert_allclose(click, [1.0], atol=1.5e-3)


def test_a_gap_in_the_audio_stays_a_gap(tmp_path):
    times = factory.regular(2, 25)
    source = factory.write(
        tmp_path / "whole.mkv",
        factory.flashes(times, [1.6]),
        times,
        audio=factory.clicks(2, [1.6]),
        audio_codec="pcm_s16le",
        options={"bf": "0"},
    )
    path = tmp_path / "gap.mkv"
    with av.open(str(source)) as inp, av.open(str(path), "w") as out:
        streams = {stream: out.add_stream_from_template(stream) for stream in inp.streams}
        for packet in inp.demux():
            if packet.dts is None or (packet.stream.type == "audio" and 0.5 < packet.pts * packet.time_base < 1.0):
                continue
            packet.stream = streams[packet.stream]
            out.mux(packet)
    flash, click, _ = marks(decode_clip(str(path), 0.0, 2.0, needs=BOTH), 0.0)
    assert flash == [1.6]
    np.testing.assert_allclose(click, [1.6], atol=1.5e-3)


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
@pytest.mark.parametrize(
    "times",
    [
        *(factory.regular(2, 12), factory.regular(2, 25), factory.regular(2, 30), factory.regular(1, 120)),
        *(factory.regular(2, 30000 / 1001), factory.uneven(2, 1), factory.uneven(2, 2) + 0.3),
    ],
    ids=["12", "25", "30", "120", "29.97", "uneven", "uneven from 0.3"],
)
def test_each_tick_shows_what_a_player_shows(tmp_path, times, ending):
    path = factory.write(tmp_path / f"n.{ending}", factory.numbered(times), times, options={**B_FRAMES, "crf": "10"})
    own = times - times[0]
    rounding_s = 1e-3 if ending == "mkv" else 1e-5
    seconds = float(own[-1])
    for start_s in (0.0, 0.44, 0.8):
        media = decode_clip(str(path), start_s, seconds, needs=BOTH)
        ticks = start_s + np.arange(len(media.frames)) / 25
        assert len(ticks) == np.ceil(round((seconds - start_s) * 25, 6))
        seen = np.array([factory.number_of(frame) for frame in media.frames])
        wanted, latest = (
            np.searchsorted(own, ticks + 1e-3 + shift_s, side="right") - 1 for shift_s in (-rounding_s, rounding_s)
        )
        assert np.all((seen == wanted) | (seen == latest))
        np.testing.assert_array_equal(media.frame_index, seen - seen[0])


def test_stills_are_whole_and_evenly_spread(tmp_path):
    times = factory.regular(2, 25)
    path = factory.write(tmp_path / "n.mp4", factory.numbered(times, (320, 240)), times, options={"crf": "10"})
    media = decode_clip(str(path), 0.4, 1.6, needs=frozenset({"stills"}), stills=4)
    np.testing.assert_allclose(media.still_times_s, [0.15, 0.45, 0.75, 1.05])
    assert [factory.number_of(still) for still in media.stills] == [13, 21, 28, 36]
    assert all(still.shape == (240, 320, 3) for still in media.stills)
    assert media.frames.shape == (0, 0, 0, 3)


def test_only_what_is_needed_is_decoded(tmp_path):
    times = factory.regular(2, 25)
    path = str(factory.write(tmp_path / "a.mp4", factory.flashes(times, [1]), times, audio=factory.clicks(2, [1])))
    heard = decode_clip(path, 0.0, 2.0, needs=frozenset({"audio"}))
    assert heard.decoded_frames == 0
    assert heard.speech.shape == (32_000,)
    both = decode_clip(path, 0.0, 2.0, needs=BOTH)
    assert both.decoded_frames == 50
    assert heard.video_bytes == both.video_bytes > 0
    np.testing.assert_array_equal(heard.audio, both.audio)
    assert both.fps == heard.fps == pytest.approx(25)
    assert both.bytes_read >= both.video_bytes


def test_decoding_stops_at_the_clip(tmp_path):
    times = factory.regular(4, 25)
    path = factory.write(tmp_path / "a.mp4", factory.flashes(times, []), times, options={"g": "10", "bf": "0"})
    media = decode_clip(str(path), 2.0, 2.4, needs=frozenset({"frames"}))
    assert media.decoded_frames <= 10 + 2


@pytest.fixture(scope="module")
def long_gop(tmp_path_factory) -> tuple[Path, ClipMedia]:
    """Numbered frames of uneven rate in one open GOP after another, and the whole of it decoded."""
    times = factory.uneven(4, 3)
    path = factory.write(
        tmp_path_factory.mktemp("gop") / "gop.mp4",
        factory.numbered(times),
        times,
        options={**B_FRAMES, "g": "24", "crf": "10"},
        audio=np.stack([chirp(4, 200, 900), chirp(4, 3000, 500)]),
    )
    return path, decode_clip(str(path), 0.0, 3.9, needs=BOTH)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=st.integers(0, 80), length=st.integers(1, 17))
def test_a_clip_is_the_same_part_of_the_whole(long_gop, first, length):
    path, whole = long_gop
    part = decode_clip(str(path), first / 25, (first + length) / 25, needs=BOTH)
    np.testing.assert_array_equal(part.frames, whole.frames[first : first + length])
    expected = whole.audio[:, first * 1764 : (first + length) * 1764]
    np.testing.assert_allclose(part.audio, expected, atol=1e-4)
    assert part.speech.shape == (length * 640,)


def test_timestamps_that_repeat_or_run_back(tmp_path):
    """Two frames at one time: the later stands. A frame that comes after its time has passed is not shown."""
    times = factory.regular(2, 25)
    source = factory.write(tmp_path / "a.mkv", factory.numbered(times), times, codec="mjpeg", pixel_format="yuvj420p")
    path = tmp_path / "bad.mkv"
    with av.open(str(source)) as inp, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(inp.streams.video[0])
        for index, packet in enumerate(packet for packet in inp.demux(video=0) if packet.size):
            packet.pts = {21: 20, 31: 28}.get(index, index) * 40
            packet.dts = (index - 10) * 40
            packet.stream = stream
            out.mux(packet)
    seen = [factory.number_of(f) for f in decode_clip(str(path), 0.0, 1.96, needs=frozenset({"frames"})).frames]
    assert seen == [*range(20), 21, 21, *range(22, 31), 30, *range(32, 49)]


def test_edit_list(tmp_path):
    """The first 0.4 s of video and audio are hidden by an edit list, as in a cut without transcoding."""
    times = factory.regular(2, 25)
    source = factory.write(
        tmp_path / "whole.mp4",
        factory.flashes(times, [1.6]),
        times,
        audio=factory.clicks(2, [1.6]),
        options={"bf": "2", "g": "50"},
    )
    path = tmp_path / "edited.mp4"
    with av.open(str(source)) as inp, av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as out:
        streams = {stream: out.add_stream_from_template(stream) for stream in inp.streams}
        for packet in inp.demux():
            if packet.dts is None:
                continue
            shift = round(0.4 / packet.time_base)
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            packet.stream = streams[packet.stream]
            out.mux(packet)
    info = probe(str(path))
    assert info.duration_s == pytest.approx(1.6, abs=0.01)
    for start_s in (0.0, 0.8):
        flash, click, _ = marks(decode_clip(str(path), start_s, 1.6, needs=BOTH), start_s)
        np.testing.assert_allclose(flash, [1.2], atol=1e-6)
        np.testing.assert_allclose(click, [1.2], atol=1.5e-3)


def test_decord_gives_the_same_frames(tmp_path):
    pytest.importorskip("decord")
    times = factory.regular(2, 30)
    path = str(factory.write(tmp_path / "n.mp4", factory.numbered(times, (320, 240)), times, options=B_FRAMES))
    ours = decode_clip(path, 0.4, 1.8, needs=BOTH, frame_side=160)
    theirs = decode_clip(path, 0.4, 1.8, needs=BOTH, frame_side=160, decoder="decord")
    np.testing.assert_array_equal(theirs.frame_index, ours.frame_index)
    assert [factory.number_of(f) for f in theirs.frames] == [factory.number_of(f) for f in ours.frames]
    assert replace(theirs, planes=ours.planes, frame_index=ours.frame_index).width == ours.width
    with pytest.raises(MediaError):
        decode_clip(path, 1.0, 4.0, needs=BOTH, decoder="decord")


def test_missing_decord_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "decord", None)
    with pytest.raises(ValueError, match=r"unitalking\[decord\]"):
        decode_clip(str(tmp_path / "x.mp4"), 0.0, 1.0, needs=BOTH, decoder="decord")
