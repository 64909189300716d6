"""Codecs and text encoders from their configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from kit.config import Strict
from model.codecs.base import AudioCodec, VideoCodec
from model.codecs.files import locate_files
from model.codecs.linear_audio import LinearAudioCodec
from model.codecs.linear_video import LinearVideoCodec
from model.codecs.statistics import LatentStatistics
from model.text import TextEncoder, WordEncoder


class LinearVideoConfig(Strict):
    """Settings of :class:`model.codecs.linear_video.LinearVideoCodec`.

    Attributes:
        kind: names the codec.
        spatial: side of a block, in pixels.
        temporal: frames of a block.
        channels: coefficients that are kept of a block; null keeps all.
        statistics: JSON file of the latents' mean and deviation; null leaves latents as they are.
    """

    kind: Literal["linear"]
    spatial: int = Field(8, ge=1)
    temporal: int = Field(4, ge=1)
    channels: int | None = Field(48, ge=1)
    statistics: Path | None = None


class LinearAudioConfig(Strict):
    """Settings of :class:`model.codecs.linear_audio.LinearAudioCodec`.

    Attributes:
        kind: names the codec.
        rate: in Hz.
        n_fft: samples of a frame.
        hop: samples from one frame to the next.
        mels: bands of the mel spectrogram.
        low_hz: lower end of the bands.
        high_hz: upper end of the bands; null is half the rate.
        group: frames of a latent.
        channels: coefficients that are kept of ``mels · group``; null keeps all.
        floor: amplitude, of a full-scale sine's 1, that is added before the logarithm.
        iterations: of Griffin-Lim.
        statistics: JSON file of the latents' mean and deviation; null leaves latents as they are.
    """

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


class WordsConfig(Strict):
    """Settings of :class:`model.text.WordEncoder`.

    Attributes:
        kind: names the encoder.
        length: rows of an embedding; longer texts are cut.
        width: features of a row.
    """

    kind: Literal["words"]
    length: int = Field(32, ge=1)
    width: int = Field(64, ge=1)


class WanConfig(Strict):
    """Settings of :class:`model.codecs.wan22.WanVideoCodec`.

    Attributes:
        kind: names the codec.
        weights: a diffusers folder, ``Wan2.2_VAE.pth`` or a registered model.
        tile: side in pixels of the tiles that bound memory; null codes pictures whole.
        statistics: JSON file of the latents' mean and deviation, in place of the published ones.
    """

    kind: Literal["wan22"]
    weights: Path
    tile: int | None = Field(None, ge=64, multiple_of=64)
    statistics: Path | None = None


class MMAudioConfig(Strict):
    """Settings of :class:`model.codecs.mmaudio.MMAudioCodec`.

    Attributes:
        kind: names the codec.
        vae, vocoder: a diffusers folder, the released file or a registered model.
        chunk_s: longer sounds are vocoded in pieces of so many seconds, which bounds memory.
        statistics: JSON file of the latents' mean and deviation; null leaves latents as they are.
    """

    kind: Literal["mmaudio"]
    vae: Path
    vocoder: Path
    chunk_s: float = Field(10.0, gt=0)
    statistics: Path | None = None


class UMT5TextConfig(Strict):
    """Settings of :class:`model.umt5.UMT5Encoder`.

    Attributes:
        kind: names the encoder.
        weights: a transformers folder, Wan's own file or a registered model.
        tokenizer: the tokenizer's folder, or one of a registered model.
        length: rows of an embedding; longer texts are cut.
    """

    kind: Literal["umt5"]
    weights: Path
    tokenizer: Path
    length: int = Field(512, ge=1)


VideoCodecConfig = Annotated[LinearVideoConfig | WanConfig, Field(discriminator="kind")]
AudioCodecConfig = Annotated[LinearAudioConfig | MMAudioConfig, Field(discriminator="kind")]
TextEncoderConfig = Annotated[WordsConfig | UMT5TextConfig, Field(discriminator="kind")]


def build_video_codec(config: LinearVideoConfig | WanConfig, statistics: LatentStatistics | None = None) -> VideoCodec:
    """The codec, on the CPU.

    Args:
        statistics: in place of those that the configuration names.

    Raises:
        WeightsError: a file that is neither at a path nor in the cache.
        ValueError, OSError: a file that does not fit or cannot be read.
    """
    statistics = statistics or _statistics(config.statistics)
    if isinstance(config, WanConfig):
        # Imported here, as diffusers takes seconds and the linear codecs do without.
        from model.codecs.wan22 import WanVideoCodec, load_vae

        files = locate_files(config)
        return WanVideoCodec(load_vae(files["weights"]), statistics=statistics, tile=config.tile)
    return LinearVideoCodec(**_settings(config), statistics=statistics)


def build_audio_codec(
    config: LinearAudioConfig | MMAudioConfig, statistics: LatentStatistics | None = None
) -> AudioCodec:
    """As :func:`build_video_codec`."""
    statistics = statistics or _statistics(config.statistics)
    if isinstance(config, MMAudioConfig):
        from model.codecs.mmaudio import load_codec

        files = locate_files(config)
        return load_codec(files["vae"], files["vocoder"], statistics=statistics, chunk_s=config.chunk_s)
    return LinearAudioCodec(**_settings(config), statistics=statistics)


def build_text_encoder(config: WordsConfig | UMT5TextConfig) -> TextEncoder:
    """As :func:`build_video_codec`."""
    if isinstance(config, UMT5TextConfig):
        from model.umt5 import load_umt5

        files = locate_files(config)
        return load_umt5(files["weights"], files["tokenizer"], length=config.length)
    return WordEncoder(config.length, config.width)


def _statistics(path: Path | None) -> LatentStatistics | None:
    return LatentStatistics.load(path) if path is not None else None


def _settings(config: LinearVideoConfig | LinearAudioConfig) -> dict[str, Any]:
    return config.model_dump(exclude={"kind", "statistics"})
