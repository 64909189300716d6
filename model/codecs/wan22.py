"""Wan2.2's video VAE: 4 × 16 × 16 pixels to 48 channels, causal, from ``diffusers``."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor, nn

from model.codecs.statistics import LatentStatistics, Normaliser, digest, weights_digest
from model.weights.load import TensorsError, load_strict, open_weights
from model.weights.vae22 import to_diffusers

# Mean and deviation of the released VAE's latents (``wan/modules/vae2_2.py``).
# fmt: off
_MEAN = (
    -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891,
    0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
    -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723,
    -0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
)
_STD = (
    0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901,
    0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
    0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944,
    0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
)
# fmt: on

# Its shape.
RELEASED = {
    "base_dim": 160,
    "decoder_base_dim": 256,
    "z_dim": 48,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_scales": [],
    "temperal_downsample": [False, True, True],
    "is_residual": True,
    "patch_size": 2,
    "in_channels": 12,
    "out_channels": 12,
    "scale_factor_temporal": 4,
    "scale_factor_spatial": 16,
    "latents_mean": _MEAN,
    "latents_std": _STD,
}


class WanVideoCodec(nn.Module):
    """The VAE behind :class:`model.codecs.base.VideoCodec`: the posterior's mean, normalised per channel.

    Time is coded in chunks with a cache, as the VAE is causal, so memory does not grow with length; ``tile`` bounds it
    in space too, at the price of blended seams.

    Args:
        vae: with its weights.
        statistics: in place of the published ones, which its configuration holds.
        tile: side in pixels of tiles that are coded one by one; None codes whole frames.
    """

    def __init__(
        self, vae: AutoencoderKLWan, *, statistics: LatentStatistics | None = None, tile: int | None = None
    ) -> None:
        super().__init__()
        config = vae.config
        self.vae = vae.eval().requires_grad_(False)
        self.stride = (config.scale_factor_temporal, config.scale_factor_spatial, config.scale_factor_spatial)
        if statistics is None:
            statistics = LatentStatistics(mean=config.latents_mean, std=config.latents_std, count=0)
        self.normaliser = Normaliser(config.z_dim, statistics)
        self.channels = self.normaliser.channels
        if tile is not None:
            step = tile * 3 // 4
            vae.enable_tiling(tile, tile, step, step)
        self.fingerprint = digest("wan22", weights_digest(vae.state_dict()), self.normaliser.fingerprint, tile)

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        temporal, rows, columns = self.stride
        if frames < 1 or (frames - 1) % temporal or height % rows or width % columns:
            raise ValueError(
                f"a video of {frames} frames, {width} × {height}, does not fit: 1 + k · {temporal} frames and"
                f" sides that are multiples of {columns} and {rows} do"
            )
        return self.channels, 1 + (frames - 1) // temporal, height // rows, width // columns

    @torch.no_grad()
    def encode(self, video: Tensor) -> Tensor:
        """See :meth:`model.codecs.base.VideoCodec.encode`."""
        self.latent_shape(*video.shape[2:])
        return self.normaliser.normalise(self.vae.encode(video.to(self.vae.dtype)).latent_dist.mode().float())

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Tensor:
        """See :meth:`model.codecs.base.VideoCodec.decode`."""
        return self.vae.decode(self.normaliser.restore(latent).to(self.vae.dtype)).sample.float().clamp(-1, 1)


def load_vae(path: Path) -> AutoencoderKLWan:
    """From a diffusers folder (``config.json`` beside its safetensors) or Wan's own ``Wan2.2_VAE.pth``.

    Raises:
        TensorsError: nothing there, or keys that do not fit; all are listed.
    """
    settings = path / "config.json"
    native = not settings.is_file()
    if native and path.is_dir():
        raise TensorsError(f"{path} holds no config.json: give a diffusers folder or the file Wan2.2_VAE.pth")
    config = RELEASED if native else _settings(settings)
    with torch.device("meta"):
        vae = AutoencoderKLWan(**config)
    load_strict(vae, open_weights(path), rename=to_diffusers if native else lambda key: key)
    return vae


def _settings(path: Path) -> dict:
    return {name: value for name, value in json.loads(path.read_text("utf-8")).items() if not name.startswith("_")}
