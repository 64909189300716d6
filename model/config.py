"""Shapes of UniTalking and the choices that its weights depend on; stored with every checkpoint."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from kit.config import Strict

Stream = Literal["video", "audio"]


class ModelConfig(Strict):
    """What a UniTalking is made of; strict, frozen, and written as YAML or JSON beside its weights.

    The names ``paper``, ``small`` and ``tiny`` stand for whole configurations (:meth:`preset`). ``paper`` is
    Wan2.2-TI2V-5B twice (UniTalking, arXiv 2603.01418); ``small`` keeps the real codecs' channels; ``tiny`` runs on a
    CPU with the ``linear`` codecs.

    Raises:
        pydantic.ValidationError (a ValueError): an unknown key, a value out of range, heads that do not divide ``dim``.
    """

    layers: int = Field(ge=1, description="blocks")
    dim: int = Field(ge=1, description="width of both streams")
    heads: int = Field(ge=1, description="attention heads")
    ffn_dim: int = Field(ge=1, description="width of the feed-forward layers")
    freq_dim: int = Field(256, ge=2, multiple_of=2, description="width of the sinusoidal embedding of time")
    eps: float = Field(1e-6, gt=0, description="of the norms")
    patch: tuple[Literal[1], int, int] = Field(
        (1, 2, 2), description="latent frames, rows and columns in a video token"
    )
    video_channels: int = Field(48, ge=1, description="channels of a video latent")
    audio_channels: int = Field(40, ge=1, description="channels of an audio latent")
    text_len: int = Field(512, ge=1, description="rows of a text embedding, padding included")
    text_dim: int = Field(4096, ge=1, description="width of a text embedding")
    reference_len: int = Field(257, ge=1, description="latents of a reference voice, padding included")
    reference_streams: Literal["audio", "both"] = Field("both", description="whose text attention has reference keys")
    audio_input: Literal["linear", "conv_mlp"] = Field(
        "linear", description="how audio latents become tokens; `conv_mlp` is Ovi's, +0.53 B in `paper`"
    )
    audio_rope: Literal["ovi", "physical", "literal"] = Field(
        "ovi", description="how far apart audio latents are in temporal RoPE, see `ModelConfig.audio_step`"
    )
    rope_theta: float = Field(10_000.0, gt=1, description="base of the RoPE frequencies")
    frame_step: float = Field(1.0, gt=0, description="temporal RoPE positions from one latent video frame to the next")
    fps: float = Field(24.0, gt=0, description="frames a second before the video codec")
    temporal_stride: int = Field(4, ge=1, description="frames in a latent frame; the first frame has its own")
    clip_frames: int = Field(121, ge=1, description="frames of the clip whose ends `audio_rope: ovi` makes coincide")
    audio_latent_rate: float = Field(44_100 / 1024, gt=0, description="audio latents a second")

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, value: Any) -> Any:
        """In files: a preset's name, ``{preset: name, field: value, …}``, or all fields."""
        if isinstance(value, str):
            value = {"preset": value}
        if not isinstance(value, dict) or "preset" not in value:
            return value
        changes = dict(value)
        name = changes.pop("preset")
        if name not in PRESETS:
            raise ValueError(f"no model preset {name!r}; there are {', '.join(PRESETS)}")
        return {**PRESETS[name], **changes}

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        if self.dim % self.heads or self.head_dim % 2 or self.head_dim < 6:
            raise ValueError(f"dim={self.dim} must be heads={self.heads} times an even width of at least 6")
        if min(self.patch) < 1:
            raise ValueError(f"patch={self.patch} must be positive")
        return self

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    @property
    def video_latent_rate(self) -> float:
        """Latent frames a second, the first one apart."""
        return self.fps / self.temporal_stride

    @property
    def audio_step(self) -> float:
        """Temporal RoPE positions from one audio latent to the next; those of a latent video frame are ``frame_step``.

        ``ovi`` spreads the audio of a ``clip_frames`` clip over the same number of positions as its latent frames (Ovi,
        arXiv 2510.01284: 0.19676 for its own rates), ``physical`` is the ratio of the two rates, ``literal`` counts
        tokens in both streams.
        """
        if self.audio_rope == "literal":
            return self.frame_step
        if self.audio_rope == "physical":
            return self.frame_step * self.video_latent_rate / self.audio_latent_rate
        latent_frames = 1 + (self.clip_frames - 1) // self.temporal_stride
        return self.frame_step * latent_frames / (self.clip_frames / self.fps * self.audio_latent_rate)

    def has_reference(self, stream: Stream) -> bool:
        """Whether the blocks of ``stream`` attend to the reference voice."""
        return stream == "audio" or self.reference_streams == "both"

    @classmethod
    def preset(cls, name: str, **changes: Any) -> ModelConfig:
        """The configuration called ``name``, with fields replaced: ``ModelConfig.preset("tiny", layers=2)``.

        Raises:
            ValueError: no preset of that name, or a change that is not valid.
        """
        return cls(preset=name, **changes)


PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"layers": 30, "dim": 3072, "heads": 24, "ffn_dim": 14_336},
    "small": {"layers": 12, "dim": 768, "heads": 12, "ffn_dim": 3072},
    "tiny": {
        "layers": 4,
        "dim": 96,
        "heads": 3,
        "ffn_dim": 192,
        "video_channels": 48,
        "audio_channels": 16,
        "text_len": 32,
        "text_dim": 64,
        "reference_len": 64,
    },
}
