"""Wan's VAE: native weights against the reference's own outputs, both layouts, causality, tiles."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import AutoencoderKLWan
from safetensors.torch import load_file, save_file

from model.codecs import wan22
from model.codecs.wan22 import RELEASED, WanVideoCodec, load_vae
from model.weights.load import TensorsError
from model.weights.vae22 import to_diffusers

SMALL = RELEASED | {
    "base_dim": 8,
    "decoder_base_dim": 8,
    "z_dim": 8,
    "latents_mean": [0.1 * n for n in range(8)],
    "latents_std": [1 + 0.1 * n for n in range(8)],
}


@pytest.fixture(scope="module")
def small() -> AutoencoderKLWan:
    torch.manual_seed(0)
    return AutoencoderKLWan(**SMALL)


def clip(frames: int, height: int = 32, width: int = 48) -> torch.Tensor:
    return torch.rand(1, 3, frames, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_native_weights_give_the_references_latents_and_pictures(shared, tmp_path, monkeypatch):
    golden = load_file(shared / "golden" / "wan_native_vae22.safetensors")
    native = {key.removeprefix("weights/"): value for key, value in golden.items() if key.startswith("weights/")}
    torch.save(native, tmp_path / "vae.pth")
    plain = {"latents_mean": [0.0] * 8, "latents_std": [1.0] * 8}
    monkeypatch.setattr(wan22, "RELEASED", SMALL | plain)
    codec = WanVideoCodec(load_vae(tmp_path / "vae.pth"))
    latent = codec.encode(golden["io/video"])
    assert (latent - golden["io/latent_mean"]).abs().max() <= 1e-6
    assert (codec.decode(latent) - golden["io/decoded"].clamp(-1, 1)).abs().max() <= 1e-5


def test_every_key_of_the_released_shape_has_a_native_name():
    """The renaming is onto: what it makes of native names is what diffusers has, no less."""
    with torch.device("meta"):
        keys = set(AutoencoderKLWan(**RELEASED).state_dict())
    levels = {"encoder": ("down", 4, 2), "decoder": ("up", 4, 3)}
    native = {f"{name}.{part}" for name in ("conv1", "conv2") for part in ("weight", "bias")}
    residual = ["residual.0.gamma", "residual.2.weight", "residual.2.bias", "residual.3.gamma"]
    residual += ["residual.6.weight", "residual.6.bias", "shortcut.weight", "shortcut.bias"]
    sampler = ["resample.1.weight", "resample.1.bias", "time_conv.weight", "time_conv.bias"]
    attention = ["norm.gamma", "to_qkv.weight", "to_qkv.bias", "proj.weight", "proj.bias"]
    for half, (way, count, blocks) in levels.items():
        native |= {
            f"{half}.{part}" for part in ("conv1.weight", "conv1.bias", "head.0.gamma", "head.2.weight", "head.2.bias")
        }
        native |= {f"{half}.middle.{place}.{part}" for place in (0, 2) for part in residual}
        native |= {f"{half}.middle.1.{part}" for part in attention}
        for level in range(count):
            prefix = f"{half}.{way}samples.{level}.{way}samples"
            native |= {f"{prefix}.{place}.{part}" for place in range(blocks) for part in residual}
            native |= {f"{prefix}.{blocks}.{part}" for part in sampler}
    renamed = {to_diffusers(key): key for key in native}
    assert len(renamed) == len(native)
    assert keys <= set(renamed)
    assert to_diffusers("blocks.0.weight") is None


def test_a_diffusers_folder_loads_and_its_latents_are_normalised(small, tmp_path):
    small.save_pretrained(tmp_path)
    codec = WanVideoCodec(load_vae(tmp_path))
    video = clip(9)
    latent = codec.encode(video)
    assert latent.shape == (1, *codec.latent_shape(9, 32, 48)) and codec.stride == (4, 16, 16)
    raw = small.encode(video).latent_dist.mode()
    mean, std = (torch.tensor(SMALL[name]).view(1, -1, 1, 1, 1) for name in ("latents_mean", "latents_std"))
    torch.testing.assert_close(latent, (raw - mean) / std, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(codec.decode(latent), small.decode(raw).sample.clamp(-1, 1), atol=1e-5, rtol=0)


def test_the_first_frame_does_not_know_the_rest(small):
    codec = WanVideoCodec(small)
    video = clip(9)
    torch.testing.assert_close(codec.encode(video[:, :, :1]), codec.encode(video)[:, :, :1], atol=1e-6, rtol=0)
    latent = codec.encode(video)
    torch.testing.assert_close(codec.decode(latent[:, :, :2]), codec.decode(latent)[:, :, :5], atol=1e-5, rtol=0)


def test_tiles_give_the_size_of_the_whole(small):
    torch.manual_seed(0)
    tiled = WanVideoCodec(AutoencoderKLWan(**SMALL), tile=64)
    video = clip(5, 96, 96)
    latent = tiled.encode(video)
    assert latent.shape == (1, *tiled.latent_shape(5, 96, 96)) and tiled.decode(latent).shape == video.shape


def test_what_does_not_fit_is_named(small, tmp_path):
    with pytest.raises(ValueError, match="does not fit"):
        WanVideoCodec(small).latent_shape(6, 32, 48)
    with pytest.raises(TensorsError, match=r"no config\.json"):
        load_vae(tmp_path)
    state = dict(small.state_dict())
    del state["quant_conv.bias"]
    save_file({**state, "more": torch.zeros(1)}, tmp_path / "diffusion_pytorch_model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(SMALL))
    with pytest.raises(TensorsError, match=r"(?s)extra: more.*missing: quant_conv.bias"):
        load_vae(tmp_path)
