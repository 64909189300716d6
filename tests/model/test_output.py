"""Files of a sample: whole, in sync, and done only when the record stands."""

from __future__ import annotations

import json

import av
import numpy as np
import pytest

from media.encode import write_video
from model.output import Sample, check_sync, fingerprint, is_done, output_folder
from model.request import Request, RequestError

RATE = 16_000


def made(seconds: float = 1.0, fps: float = 24.0, rate: int = RATE) -> Sample:
    frames = round(seconds * fps)
    samples = round(frames / fps * rate)
    rng = np.random.default_rng(0)
    return Sample(
        Request(key="a", task="t2av", prompt="", height=32, width=48),
        rng.integers(0, 256, (frames, 32, 48, 3), np.uint8),
        fps,
        rng.normal(0, 0.1, samples).astype(np.float32),
        rate,
    )


@pytest.mark.parametrize("rate", [16_000, 44_100, 22_050, 18_000])
@pytest.mark.parametrize("fps", [24.0, 25.0, 12.5])
def test_video_and_audio_of_the_file_agree(tmp_path, fps, rate):
    sample = made(1.0, fps, rate)
    sample.save(tmp_path, {"fingerprint": "x"})
    with av.open(str(tmp_path / "a.mp4")) as file:
        video, audio = file.streams.video[0], file.streams.audio[0]
        assert float(video.duration * video.time_base) == pytest.approx(len(sample.video) / fps, abs=1e-3)
        assert float(video.start_time * video.time_base) == 0
        assert float(audio.start_time * audio.time_base) == 0
        assert float(audio.duration * audio.time_base) == pytest.approx(len(sample.audio) / rate, abs=1e-3)
    assert {path.name for path in tmp_path.iterdir()} == {"a.mp4", "a.wav", "a.json"}
    assert set(json.loads((tmp_path / "a.json").read_text())["files"]) == {"a.mp4", "a.wav"}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"frames": 23}, "24 frames"),
        ({"fps": 25.0}, "24 frames"),
        ({"audio_s": 0.5}, "audio"),
        ({"audio_s": 1.1}, "audio"),
    ],
)
def test_a_file_out_of_sync_is_noticed(tmp_path, change, complaint):
    sample = made()
    write_video(tmp_path / "a.mp4", sample.video, 24, audio=sample.audio, audio_rate=RATE)
    truth = {"frames": 24, "fps": 24.0, "audio_s": 1.0}
    check_sync(tmp_path / "a.mp4", **truth)
    with pytest.raises(RuntimeError, match=complaint):
        check_sync(tmp_path / "a.mp4", **(truth | change))


def test_late_sound_is_noticed(tmp_path):
    sample = made()
    write_video(tmp_path / "a.mp4", sample.video, 24, audio=sample.audio, audio_rate=RATE, audio_delay_s=0.04)
    with pytest.raises(RuntimeError, match="its audio is from"):
        check_sync(tmp_path / "a.mp4", frames=24, fps=24.0, audio_s=1.0)


def test_speech_alone_has_no_mp4(tmp_path):
    sample = made()
    Sample(sample.request, None, 24.0, sample.audio, RATE).save(tmp_path, {})
    assert {path.name for path in tmp_path.iterdir()} == {"a.wav", "a.json"}


def test_only_the_same_configuration_is_done(tmp_path):
    assert not is_done(tmp_path, "a", "x")
    made().save(tmp_path, {"fingerprint": "x"})
    assert is_done(tmp_path, "a", "x")
    with pytest.raises(RequestError, match=r"a\.json was made from another request, configuration or weights"):
        is_done(tmp_path, "a", "y")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(RequestError, match=r"a\.json cannot be read"):
        is_done(tmp_path, "a", "x")


def test_fingerprints_tell_contents_apart():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1}) != fingerprint({"a": 1, "b": 3})


def test_a_folder_has_one_writer_and_no_remains(tmp_path):
    folder = tmp_path / "new"
    with output_folder(folder):
        (folder / ".writing-abc").write_text("half")
        with pytest.raises(RequestError, match="another run writes to"), output_folder(folder):
            pass
    with output_folder(folder):
        assert not list(folder.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match="cannot write to"), output_folder(tmp_path / "file"):
        pass
