"""MMAudio's 44.1 kHz audio VAE and the BigVGAN v2 vocoder, from ``diffusers``: 1024 samples to 40 channels."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import MMAudioVAE, MMAudioVocoder
from torch import Tensor, nn

from model.codecs.statistics import LatentStatistics, Normaliser, digest, weights_digest
from model.weights import bigvgan, mmaudio
from model.weights.load import TensorsError, load_strict, open_weights


class MMAudioCodec(nn.Module):
    """VAE and vocoder behind :class:`model.codecs.base.AudioCodec`: the posterior's mean.

    The waveform is padded to whole latents before the mel, so that a clip of *s* seconds has ``ceil(s · 44100 / 1024)``
    latents; the mel of the raw waveform would be one short now and then. Without ``statistics`` latents are as the VAE
    gives them, as in Ovi; UniTalking's own normalisation is not published.

    Args:
        vae, vocoder: with their weights.
        statistics: measured on a corpus.
        chunk_s: longer audio is vocoded in pieces of so many seconds, which bounds memory; what a piece needs around
            it is computed twice.
    """

    # Latents around a piece: the vocoder's convolutions see some 40 mel frames to either side.
    _MARGIN = 32

    def __init__(
        self,
        vae: MMAudioVAE,
        vocoder: MMAudioVocoder,
        *,
        statistics: LatentStatistics | None = None,
        chunk_s: float = 10.0,
    ) -> None:
        super().__init__()
        self.vae, self.vocoder = vae.eval().requires_grad_(False), vocoder.eval().requires_grad_(False)
        self.rate = vae.config.sample_rate
        self._samples = vae.latent_hop_length
        self.latent_rate = self.rate / self._samples
        self._chunk = max(1, round(chunk_s * self.latent_rate))
        self.normaliser = Normaliser(vae.config.latent_channels, statistics)
        self.channels = self.normaliser.channels
        settings = [json.dumps(_decisive(part.config), sort_keys=True) for part in (vae, vocoder)]
        parts = weights_digest(vae.state_dict()), weights_digest(vocoder.state_dict()), *settings
        self.fingerprint = digest("mmaudio", *parts, self.normaliser.fingerprint)

    def latent_shape(self, samples: int) -> tuple[int, int]:
        if samples < 1:
            raise ValueError("a waveform without samples has no latents")
        return self.channels, math.ceil(samples / self._samples)

    @torch.no_grad()
    def encode(self, audio: Tensor) -> Tensor:
        """See :meth:`model.codecs.base.AudioCodec.encode`."""
        _, length = self.latent_shape(audio.shape[1])
        # The mel mirrors its borders, for which a single latent is too short.
        samples = max(length, 2) * self._samples
        audio = F.pad(audio, (0, samples - audio.shape[1]))
        latent = self.vae.encode(audio.to(self.vae.dtype)).latent_dist.mode().float()
        return self.normaliser.normalise(latent[:, :, :length])

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Tensor:
        """See :meth:`model.codecs.base.AudioCodec.decode`."""
        mel = self.vae.decode(self.normaliser.restore(latent).to(self.vae.dtype)).sample
        per_latent = mel.shape[2] // latent.shape[2]
        chunk, margin = self._chunk * per_latent, self._MARGIN * per_latent
        pieces = []
        for start in range(0, mel.shape[2], chunk):
            first, last = max(0, start - margin), min(mel.shape[2], start + chunk + margin)
            audio = self.vocoder(mel[:, :, first:last]).sample.flatten(1)
            hop = audio.shape[1] // (last - first)
            pieces.append(audio[:, (start - first) * hop : (min(start + chunk, mel.shape[2]) - first) * hop])
        return torch.cat(pieces, 1).float().clamp(-1, 1)


def load_codec(vae: Path, vocoder: Path, **settings) -> MMAudioCodec:
    """From diffusers folders (``config.json`` beside safetensors) or the released files (``v1-44.pth``,
    ``bigvgan_generator.pt``).

    Raises:
        TensorsError: nothing there, or keys that do not fit; all are listed.
    """
    return MMAudioCodec(load_vae(vae), load_vocoder(vocoder), **settings)


def load_vae(path: Path) -> MMAudioVAE:
    """See :func:`load_codec`."""
    config = _settings(path)
    module = MMAudioVAE(**(config or {}))
    computed = {"mel_converter.*": "computed from the settings"}
    if config is None:
        load_strict(module, mmaudio.baked(open_weights(path)), rename=mmaudio.to_diffusers, may_miss=computed)
    else:
        load_strict(module, open_weights(path), may_miss=computed)
    return module


def load_vocoder(path: Path) -> MMAudioVocoder:
    """See :func:`load_codec`."""
    config = _settings(path)
    module = MMAudioVocoder(**(config or {}))
    load_strict(module, bigvgan.folded(open_weights(path)) if config is None else open_weights(path))
    return module


def _decisive(config: Mapping[str, Any]) -> dict[str, Any]:
    """A diffusers configuration without what it notes about its file."""
    return {name: value for name, value in config.items() if not name.startswith("_")}


def _settings(path: Path) -> dict | None:
    """Of a diffusers folder; None for a released file."""
    settings = path / "config.json"
    if settings.is_file():
        return _decisive(json.loads(settings.read_text("utf-8")))
    if path.is_dir():
        raise TensorsError(f"{path} holds no config.json: give a diffusers folder or a released file")
    return None
