"""MMAudio's VAE and BigVGAN: native weights against the references' own outputs, whole latents, pieces."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from diffusers import MMAudioVAE, MMAudioVocoder
from safetensors.torch import load_file
from torch.nn.utils.parametrizations import weight_norm

from model.codecs import mmaudio
from model.codecs.mmaudio import MMAudioCodec, load_codec, load_vae, load_vocoder
from model.weights.bigvgan import folded

SMALL_VAE = {"latent_channels": 8, "hidden_channels": 32}
SMALL_VOCODER = {"upsample_initial_channel": 64}


@pytest.fixture(scope="module")
def codec() -> MMAudioCodec:
    torch.manual_seed(0)
    return MMAudioCodec(MMAudioVAE(**SMALL_VAE), MMAudioVocoder(**SMALL_VOCODER), chunk_s=1.0)


@pytest.fixture
def golden(shared) -> Callable[[str], tuple[dict, dict]]:
    def read(name: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        tensors = load_file(shared / "golden" / f"{name}.safetensors")
        return tuple(
            {key.removeprefix(kind): value for key, value in tensors.items() if key.startswith(kind)}
            for kind in ("weights/", "io/")
        )

    return read


def test_native_vae_gives_the_references_mel_latents_and_mel(golden, tmp_path, monkeypatch):
    weights, io = golden("mmaudio_vae")
    torch.save(weights, tmp_path / "v1-44.pth")
    monkeypatch.setattr(mmaudio, "MMAudioVAE", lambda: MMAudioVAE(**SMALL_VAE))
    vae = load_vae(tmp_path / "v1-44.pth")
    with torch.no_grad():
        assert (vae.mel_converter(io["wave"]) - io["mel"]).abs().max() <= 5e-5
        latent = vae.vae.encode(io["mel_in"]).chunk(2, 1)[0]
        assert (latent - io["latent_mode"]).abs().max() <= 1e-5
        assert (vae.vae.decode(io["latent_mode"]) - io["decoded"]).abs().max() <= 1e-4


def test_weights_without_their_norm_baked_in_are_baked(golden, tmp_path, monkeypatch):
    weights, io = golden("mmaudio_vae")
    scaled = {
        key: value * 3 if value.ndim == 3 and not key.startswith("data_") else value for key, value in weights.items()
    }
    torch.save(scaled, tmp_path / "v1-44.pth")
    monkeypatch.setattr(mmaudio, "MMAudioVAE", lambda: MMAudioVAE(**SMALL_VAE))
    with torch.no_grad():
        latent = load_vae(tmp_path / "v1-44.pth").vae.encode(io["mel_in"]).chunk(2, 1)[0]
    # The norm's epsilon, 1e-4 of a weight, is the difference.
    assert (latent - io["latent_mode"]).abs().max() <= 1e-2


def test_native_vocoder_gives_the_references_waveform(golden, tmp_path, monkeypatch):
    weights, io = golden("bigvgan_v2")
    torch.save({"generator": weights}, tmp_path / "bigvgan_generator.pt")
    monkeypatch.setattr(mmaudio, "MMAudioVocoder", lambda: MMAudioVocoder(**SMALL_VOCODER))
    with torch.no_grad():
        audio = load_vocoder(tmp_path / "bigvgan_generator.pt")(io["mel"]).sample
    assert (audio.flatten() - io["wave"].flatten()).abs().max() <= 1e-5


def test_both_kinds_of_weight_norm_are_folded():
    torch.manual_seed(0)
    conv = weight_norm(torch.nn.Conv1d(3, 4, 5))
    state = {f"conv.{key}": value.detach() for key, value in conv.state_dict().items()}
    old = {
        "conv.bias": state["conv.bias"],
        "conv.weight_g": state["conv.parametrizations.weight.original0"],
        "conv.weight_v": state["conv.parametrizations.weight.original1"],
    }
    for weights in (state, old):
        whole = folded(weights)
        assert set(whole) == {"conv.weight", "conv.bias"}
        torch.testing.assert_close(whole["conv.weight"], conv.weight.detach())
    del old["conv.weight_v"]
    with pytest.raises(ValueError, match="weight_v"):
        folded(old)


def test_folders_load(codec, tmp_path):
    codec.vae.save_pretrained(tmp_path / "vae")
    codec.vocoder.save_pretrained(tmp_path / "vocoder")
    again = load_codec(tmp_path / "vae", tmp_path / "vocoder", chunk_s=1.0)
    audio = torch.rand(1, 5000, generator=torch.Generator().manual_seed(0)) - 0.5
    torch.testing.assert_close(again.encode(audio), codec.encode(audio), atol=0, rtol=0)
    assert again.fingerprint == codec.fingerprint
    settings = tmp_path / "vae" / "config.json"
    changed = json.loads(settings.read_text()) | {"sample_rate": 16_000}
    settings.write_text(json.dumps(changed))
    assert load_codec(tmp_path / "vae", tmp_path / "vocoder").fingerprint != codec.fingerprint
    settings = json.loads((tmp_path / "vae" / "config.json").read_text())
    assert settings["latent_channels"] == again.channels == 8


@pytest.mark.parametrize("samples", [1, 1023, 1024, 1025, 222_338])
def test_a_clip_has_as_many_latents_as_it_lasts(codec, samples):
    latents = -(-samples // 1024)
    assert codec.latent_shape(samples) == (8, latents)
    if samples < 5000:
        latent = codec.encode(torch.zeros(1, samples))
        assert latent.shape == (1, 8, latents)
        assert codec.decode(latent).shape == (1, latents * 1024)


def test_121_frames_at_24_a_second_are_218_latents(codec):
    assert codec.latent_shape(round(121 / 24 * 44_100)) == (8, 218)


def test_pieces_sound_like_the_whole(codec):
    latent = torch.randn(1, 8, 100, generator=torch.Generator().manual_seed(2))
    whole = MMAudioCodec(codec.vae, codec.vocoder, chunk_s=60.0).decode(latent)
    pieces = codec.decode(latent)
    assert pieces.shape == whole.shape == (1, 102_400)
    assert (pieces - whole).abs().max() <= 1e-5
