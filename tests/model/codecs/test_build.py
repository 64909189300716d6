"""Codecs from configuration: strict, and with the statistics that were stored."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import BaseModel, ValidationError

from model.codecs.build import (
    AudioCodecConfig,
    TextEncoderConfig,
    VideoCodecConfig,
    build_audio_codec,
    build_text_encoder,
    build_video_codec,
)
from model.codecs.statistics import LatentStatistics
from model.weights.load import WeightsError


class Codecs(BaseModel):
    video: VideoCodecConfig = {"kind": "linear"}
    audio: AudioCodecConfig = {"kind": "linear"}
    text: TextEncoderConfig = {"kind": "words"}


def test_the_linear_codecs_have_the_shapes_of_the_tiny_model():
    codecs = Codecs.model_validate(
        {"video": {"kind": "linear"}, "audio": {"kind": "linear"}, "text": {"kind": "words"}}
    )
    video, audio, text = (
        build_video_codec(codecs.video),
        build_audio_codec(codecs.audio),
        build_text_encoder(codecs.text),
    )
    assert (video.channels, audio.channels, text.length, text.width) == (48, 16, 32, 64)
    assert audio.latent_rate == pytest.approx(44_100 / 1024)


def test_stored_statistics_are_used_and_change_the_fingerprint(tmp_path: Path):
    plain = Codecs.model_validate({"video": {"kind": "linear", "spatial": 4, "temporal": 1, "channels": 6}}).video
    video = torch.rand(2, 3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    raw = build_video_codec(plain).encode(video)
    LatentStatistics.measure([raw]).save(tmp_path / "statistics.json")
    normal = build_video_codec(plain.model_copy(update={"statistics": tmp_path / "statistics.json"}))
    latent = normal.encode(video)
    torch.testing.assert_close(latent.std((0, 2, 3, 4), correction=0), torch.ones(6), atol=1e-4, rtol=0)
    assert normal.fingerprint != build_video_codec(plain).fingerprint


def test_statistics_of_something_else_are_refused(tmp_path: Path):
    (tmp_path / "statistics.json").write_text("{}")
    config = Codecs.model_validate({"audio": {"kind": "linear", "statistics": tmp_path / "statistics.json"}}).audio
    with pytest.raises(ValueError, match="not latent statistics"):
        build_audio_codec(config)
    LatentStatistics(mean=(0.0,), std=(1.0,), count=1).save(tmp_path / "statistics.json")
    with pytest.raises(ValueError, match="1 channels do not fit a codec of 16"):
        build_audio_codec(config)


@pytest.mark.parametrize(
    "wrong", [{"video": {"kind": "wan"}}, {"video": {"kind": "linear", "patch": 2}}, {"audio": {"kind": "mmaudio"}}]
)
def test_settings_that_do_not_exist_or_are_missing_are_refused(wrong):
    with pytest.raises(ValidationError):
        Codecs.model_validate(wrong)


def test_weights_that_are_not_there_are_named(tmp_path: Path):
    config = Codecs.model_validate({"video": {"kind": "wan22", "weights": tmp_path / "nothing.pth"}}).video
    with pytest.raises((WeightsError, OSError), match=r"nothing\.pth"):
        build_video_codec(config)
