from __future__ import annotations

import io
import wave

import numpy as np
import pytest

from media.encode import write_video, write_wav
from unitalking_data.decoders import decode_array, decode_audio, decode_video


def test_a_video_comes_back_frame_by_frame(tmp_path):
    frames = np.zeros((5, 32, 48, 3), np.uint8)
    for number, frame in enumerate(frames):
        frame[:] = 40 * number
    write_video(tmp_path / "a.mp4", frames, 24)
    found = decode_video((tmp_path / "a.mp4").read_bytes())
    assert found.shape == frames.shape and found.dtype == np.uint8
    assert np.abs(found.astype(int) - frames).max() <= 4


def test_audio_comes_back_within_half_a_step(tmp_path):
    audio = np.random.default_rng(0).uniform(-1, 1, (2, 500)).astype(np.float32)
    write_wav(tmp_path / "a.wav", audio, 44_100)
    found = decode_audio((tmp_path / "a.wav").read_bytes())
    assert found.dtype == np.float32 and np.abs(found - audio).max() <= 0.51 / 32767


def test_what_is_not_as_published_is_a_value_error():
    for decode in (decode_video, decode_audio, decode_array):
        with pytest.raises(ValueError):
            decode(b"not a file of any kind")
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(8000)
        file.writeframes(b"abc")
    with pytest.raises(ValueError, match="8-bit samples"):
        decode_audio(content.getvalue())


def test_pickled_arrays_are_refused():
    content = io.BytesIO()
    np.save(content, np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="pickle"):
        decode_array(content.getvalue())
