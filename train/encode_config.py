"""What latents are made with: a strict YAML file, ``configs/train/encode_*.yaml``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StringConstraints, field_validator

from engine.config import ExecutorConfig, Pool
from kit.config import Strict
from model.codecs.build import AudioCodecConfig, TextEncoderConfig, VideoCodecConfig

# Raised when the same clip, codecs and settings give other latents than before.
ENCODER_VERSION = 1


class StatisticsConfig(Strict):
    """Statistics to measure, for codecs that bring none: their latents are then normalised by them.

    Attributes:
        clips: how many are measured, drawn by hash.
        split: from which they come; what is judged by is not measured.
        video: whether to measure the video codec's latents.
        audio: whether to measure the audio codec's latents.
        video_components, audio_components: normalise by so many principal components, see
            :class:`model.codecs.statistics.LatentStatistics`; null keeps the codec's channels.
        video_whitening, audio_whitening: 1 gives every normalised channel the deviation 1, 0 leaves their proportions.
    """

    clips: int = Field(512, ge=1)
    split: str = "train"
    video: bool = False
    audio: bool = False
    video_components: int | None = Field(None, ge=1)
    audio_components: int | None = Field(None, ge=1)
    video_whitening: float = Field(1.0, ge=0, le=1)
    audio_whitening: float = Field(1.0, ge=0, le=1)


class EncodeConfig(Strict):
    """A set of latents of a release.

    Attributes:
        release: folder or fsspec URL of the release.
        name: of the set; it goes to ``<release>/latents/<name>/``.
        video_codec, audio_codec, text_encoder: as in the sampler's configuration.
        executor: where the shards are encoded.
        fps: frames a second that the model sees; of clips that have more, the frame at each time is taken.
        sizes: width and height of frames; a clip is scaled and cropped to the one nearest to its shape.
        reference_s: most seconds of a reference voice.
        prompt_style: how prompts mark speech and sound, see :class:`unitalking_data.prompts.PromptConfig`.
        dtype: in which latents are stored.
        statistics: what to measure first.
        device: of the codecs; ``auto`` takes a GPU where there is one.
        workers: processes that encode a shard each.
    """

    PARTS: ClassVar = ("video_codec", "audio_codec", "text_encoder")

    release: str
    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    video_codec: VideoCodecConfig
    audio_codec: AudioCodecConfig
    text_encoder: TextEncoderConfig
    fps: float = Field(24.0, gt=0)
    sizes: tuple[tuple[int, int], ...] = Field(min_length=1)
    reference_s: float = Field(6.0, gt=0)
    prompt_style: Literal["ovi10", "ovi11", "plain"] = "ovi11"
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    statistics: StatisticsConfig = StatisticsConfig()
    device: str = "auto"
    threads: int | None = Field(None, ge=1, description="CPU threads of each worker")
    executor: ExecutorConfig = ExecutorConfig()
    workers: Pool = Pool()

    @field_validator("sizes")
    @classmethod
    def _positive(cls, sizes: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        if any(side < 1 for size in sizes for side in size):
            raise ValueError("sizes must be positive")
        return sizes

    @property
    def parts(self) -> dict[str, VideoCodecConfig | AudioCodecConfig | TextEncoderConfig]:
        """Configurations of the codecs and the text encoder."""
        return {part: getattr(self, part) for part in self.PARTS}

    @property
    def folder(self) -> str:
        return f"{self.release.rstrip('/')}/latents/{self.name}"

    def decisive(self) -> dict[str, Any]:
        """As JSON, what decides the latents: not where the release lies, nor where and how fast they are made. Files
        of weights and statistics are known by their content, through the codecs' fingerprints."""
        content = self.model_dump(
            mode="json", exclude={"release", "name", "device", "threads", "executor", "workers", "statistics"}
        )
        for part in self.PARTS:
            content[part] = content[part]["kind"]
        return content | {"statistics": self.statistics.model_dump(mode="json")}


def origin_of(config: EncodeConfig, release: str, fingerprints: dict[str, str]) -> dict[str, Any]:
    """All that decides a set of latents, as JSON.

    Args:
        release: the release's own ``build``.
        fingerprints: of the codecs and the text encoder, before any statistics that are still to be measured.
    """
    content = {
        "encoder": ENCODER_VERSION,
        "release": release,
        "settings": config.decisive(),
        "codecs": fingerprints,
    }
    return json.loads(json.dumps(content))


def build_of(origin: Mapping[str, Any]) -> str:
    """Identity of a set of latents."""
    return hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()
