"""Codecs and text encoders from their configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

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


VideoCodecConfig = LinearVideoConfig
AudioCodecConfig = LinearAudioConfig
TextEncoderConfig = WordsConfig


def build_video_codec(config: VideoCodecConfig) -> VideoCodec:
    """The codec, on the CPU in float32. Raises ValueError or OSError naming a file that is missing or does not fit."""
    return LinearVideoCodec(**_arguments(config))


def build_audio_codec(config: AudioCodecConfig) -> AudioCodec:
    """As :func:`build_video_codec`."""
    return LinearAudioCodec(**_arguments(config))


def build_text_encoder(config: TextEncoderConfig) -> TextEncoder:
    """As :func:`build_video_codec`."""
    return WordEncoder(config.length, config.width)


def _arguments(config: LinearVideoConfig | LinearAudioConfig) -> dict:
    statistics = LatentStatistics.load(config.statistics) if config.statistics else None
    return {name: getattr(config, name) for name in type(config).model_fields if name != "kind"} | {
        "statistics": statistics
    }
