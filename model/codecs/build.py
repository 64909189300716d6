"""Codecs and text encoders from their configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from model.codecs.base import AudioCodec, VideoCodec
from model.codecs.linear_audio import LinearAudioCodec
from model.codecs.linear_video import LinearVideoCodec
from model.codecs.statistics import LatentStatistics
from model.text import TextEncoder, WordEncoder


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LinearVideoConfig(_Strict):
    """Of :class:`model.codecs.linear_video.LinearVideoCodec`; ``statistics`` is a JSON file."""

    kind: Literal["linear"]
    spatial: int = Field(8, ge=1)
    temporal: int = Field(4, ge=1)
    channels: int | None = Field(48, ge=1)
    statistics: Path | None = None


class LinearAudioConfig(_Strict):
    """Of :class:`model.codecs.linear_audio.LinearAudioCodec`; ``statistics`` is a JSON file."""

    kind: Literal["linear"]
    rate: int = Field(44_100, ge=1)
    n_fft: int = Field(2048, ge=2)
    hop: int = Field(512, ge=1)
    mels: int = Field(80, ge=1)
    low_hz: float = Field(40.0, ge=0)
    high_hz: float | None = None
    group: int = Field(2, ge=1)
    channels: int | None = Field(16, ge=1)
    floor: float = Field(1e-3, gt=0)
    iterations: int = Field(32, ge=1)
    statistics: Path | None = None


class WordsConfig(_Strict):
    """Of :class:`model.text.WordEncoder`."""

    kind: Literal["words"]
    length: int = Field(32, ge=1)
    width: int = Field(64, ge=1)


class WanConfig(_Strict):
    """Of :class:`model.codecs.wan22.WanVideoCodec`: a diffusers folder or ``Wan2.2_VAE.pth``."""

    kind: Literal["wan22"]
    weights: Path
    tile: int | None = Field(None, ge=64, multiple_of=64)
    statistics: Path | None = None


class MMAudioConfig(_Strict):
    """Of :class:`model.codecs.mmaudio.MMAudioCodec`: diffusers folders or the released files."""

    kind: Literal["mmaudio"]
    vae: Path
    vocoder: Path
    chunk_s: float = Field(10.0, gt=0)
    statistics: Path | None = None


class UMT5TextConfig(_Strict):
    """Of :class:`model.text.UMT5Encoder`: a transformers folder or Wan's own file, and the tokenizer's folder."""

    kind: Literal["umt5"]
    weights: Path
    tokenizer: Path
    length: int = Field(512, ge=1)


VideoCodecConfig = Annotated[LinearVideoConfig | WanConfig, Field(discriminator="kind")]
AudioCodecConfig = Annotated[LinearAudioConfig | MMAudioConfig, Field(discriminator="kind")]
TextEncoderConfig = Annotated[WordsConfig | UMT5TextConfig, Field(discriminator="kind")]


def build_video_codec(config: LinearVideoConfig | WanConfig, statistics: LatentStatistics | None = None) -> VideoCodec:
    """The codec, on the CPU. Raises ValueError or OSError naming a file that is missing or does not fit.

    Args:
        statistics: in place of those that the configuration names.
    """
    statistics = statistics or _statistics(config.statistics)
    if isinstance(config, WanConfig):
        # Imported here, as diffusers takes seconds and the linear codecs do without.
        from model.codecs.wan22 import WanVideoCodec, load_vae

        return WanVideoCodec(load_vae(config.weights), statistics=statistics, tile=config.tile)
    return LinearVideoCodec(**_settings(config), statistics=statistics)


def build_audio_codec(
    config: LinearAudioConfig | MMAudioConfig, statistics: LatentStatistics | None = None
) -> AudioCodec:
    """As :func:`build_video_codec`."""
    statistics = statistics or _statistics(config.statistics)
    if isinstance(config, MMAudioConfig):
        from model.codecs.mmaudio import load_codec

        return load_codec(config.vae, config.vocoder, statistics=statistics, chunk_s=config.chunk_s)
    return LinearAudioCodec(**_settings(config), statistics=statistics)


def build_text_encoder(config: WordsConfig | UMT5TextConfig) -> TextEncoder:
    """As :func:`build_video_codec`."""
    if isinstance(config, UMT5TextConfig):
        from model.umt5 import load_umt5

        return load_umt5(config.weights, config.tokenizer, length=config.length)
    return WordEncoder(config.length, config.width)


def _statistics(path: Path | None) -> LatentStatistics | None:
    return LatentStatistics.load(path) if path is not None else None


def _settings(config: LinearVideoConfig | LinearAudioConfig) -> dict[str, Any]:
    return config.model_dump(exclude={"kind", "statistics"})
