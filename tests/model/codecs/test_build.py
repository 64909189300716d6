"""Codecs from configuration: strict, and with the statistics that were stored."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from pydantic import BaseModel, ValidationError

from kit.weights import WeightsError, cached_path, lookup
from model.codecs.build import (
    AudioCodecConfig,
    TextEncoderConfig,
    VideoCodecConfig,
    build_audio_codec,
    build_text_encoder,
    build_video_codec,
)
from model.codecs.files import FILES, file_values, models_behind, models_of_kinds
from model.codecs.statistics import LatentStatistics
from model.weights.load import TensorsError


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
    with pytest.raises(WeightsError, match=r"no such file, folder or registered model: .*nothing\.pth"):
        build_video_codec(config)


PAPER = {
    "video": {"kind": "wan22", "weights": "wan2.2-vae"},
    "audio": {"kind": "mmaudio", "vae": "mmaudio-44k", "vocoder": "bigvgan"},
    "text": {
        "kind": "umt5",
        "weights": "umt5-xxl/models_t5_umt5-xxl-enc-bf16.pth",
        "tokenizer": "umt5-xxl/google/umt5-xxl",
    },
}


def test_registered_models_are_named_by_the_command_that_fetches_them(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("UNITALKING_CACHE", str(tmp_path))
    codecs = Codecs.model_validate(PAPER)
    for build, config, names in (
        (build_video_codec, codecs.video, "wan2.2-vae"),
        (build_audio_codec, codecs.audio, "mmaudio-44k bigvgan"),
        (build_text_encoder, codecs.text, f"{PAPER['text']['weights']} {PAPER['text']['tokenizer']}"),
    ):
        with pytest.raises(WeightsError, match=f"fetch with: python -m kit.weights fetch {names}$"):
            build(config)


def test_a_registered_model_is_built_from_the_cache(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("UNITALKING_CACHE", str(tmp_path))
    path = cached_path("wan2.2-vae")
    path.parent.mkdir(parents=True)
    torch.save({"strange": torch.zeros(1)}, path)
    with pytest.raises(TensorsError, match="extra: strange"):  # so it was this file that was read
        build_video_codec(Codecs.model_validate(PAPER).video)


def test_every_file_of_the_configurations_is_known_to_the_licences():
    codecs = Codecs.model_validate(PAPER)
    for config in (codecs.video, codecs.audio, codecs.text):
        paths = {name for name, field in type(config).model_fields.items() if field.annotation is Path}
        assert paths == set(FILES[config.kind])
        assert all(lookup(name).licence for name in FILES[config.kind].values())
    assert len(file_values((codecs.video, codecs.audio, codecs.text))) == 5
    plain = Codecs.model_validate({"audio": {"kind": "linear"}, "text": {"kind": "words"}})
    assert not file_values((plain.audio, plain.text))


def test_models_behind_codecs_bring_their_terms(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("UNITALKING_CACHE", str(tmp_path))
    (tmp_path / "vae").mkdir()
    (tmp_path / "vocoder.pt").write_bytes(b"mine")
    mine = {"kind": "mmaudio", "vae": str(tmp_path / "vae"), "vocoder": str(tmp_path / "vocoder.pt")}
    codecs = Codecs.model_validate({**PAPER, "audio": mine})
    vae, voice, words, tokenizer = models_behind({"audio_codec": codecs.audio, "text_encoder": codecs.text})
    assert (vae.name, vae.kind, vae.given, vae.sha256) == ("mmaudio-44k", "audio_codec.vae", "path", None)
    assert (vae.licence, vae.commercial) == ("CC-BY-NC-4.0", False) and "MMAudio" in vae.note
    assert (voice.name, voice.licence, voice.given) == ("bigvgan", "MIT", "path")
    assert voice.sha256 == hashlib.sha256(b"mine").hexdigest()
    assert (words.name, words.given, words.commercial) == ("umt5-xxl", "registry", True)
    assert words.sha256 == lookup("umt5-xxl").files["models_t5_umt5-xxl-enc-bf16.pth"].sha256
    assert tokenizer.revision == lookup("umt5-xxl").revision and tokenizer.sha256 is None
    assert [use.name for use in models_of_kinds({"audio_codec": "mmaudio", "text_encoder": "words"})] == [
        *("mmaudio-44k", "bigvgan")
    ]
