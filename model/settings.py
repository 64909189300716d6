"""Configuration of the sampler: a strict YAML file, see ``configs/sample/``."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field

from kit.config import ConfigError, Strict
from model.codecs.build import AudioCodecConfig, TextEncoderConfig, VideoCodecConfig
from model.config import ModelConfig
from model.guidance import Guidance

DEFAULTS = ("negative_prompt", "seconds", "height", "width", "seed")
MACHINE = ("batch_size", "device", "offload", "compile")


class SampleConfig(Strict):
    """What samples are made with; a request says which samples.

    Attributes:
        model: a preset's name, ``{preset: name, field: value, …}``, or all fields.
        weights: the transformer's, a safetensors file or folder or a registered model; None needs an explicit random
            start.
        video_codec: between pictures and their latents: ``linear``, or ``wan22`` with its weights.
        audio_codec: between waveforms and their latents: ``linear``, or ``mmaudio`` with its weights.
        text_encoder: of prompts: ``words``, or ``umt5`` with its weights.
        steps: of the solver.
        shift: of the noise levels towards noise; 1 spaces them evenly.
        guidance: how far to go in the direction of each condition, by stream.
        negative_prompt: for requests that give none.
        seconds: length, for requests that give none.
        height, width: in pixels, for requests that give none.
        seed: of the noise, for requests that give none.
        batch_size: samples of one task and shape that go through the network together.
        device: ``auto`` takes a GPU where there is one.
        dtype: of the transformer; the solver's state is float32 always.
        offload: keep the network, codecs and text encoder in main memory while they do not work.
        compile: ``torch.compile`` every block of the network.
    """

    model: ModelConfig
    weights: str | None = None
    video_codec: VideoCodecConfig
    audio_codec: AudioCodecConfig
    text_encoder: TextEncoderConfig
    steps: int = Field(50, ge=1, le=1000)
    shift: float = Field(5.0, gt=0)
    guidance: Guidance = Guidance()
    negative_prompt: str = ""
    seconds: float = Field(5.0, gt=0)
    height: int = Field(gt=0)
    width: int = Field(gt=0)
    seed: int = 0
    batch_size: int = Field(1, ge=1)
    device: str = "auto"
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    offload: bool = False
    compile: bool = False

    def request_defaults(self) -> dict[str, Any]:
        return self.model_dump(include=set(DEFAULTS))

    def torch_device(self) -> torch.device:
        """Raises ConfigError for a device that is not there."""
        name = self.device if self.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        try:
            torch.empty(0, device=name)
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from None
        return torch.device(name)

    def content(self) -> dict[str, Any]:
        """As JSON, what decides a sample besides its request: not where and how fast it is computed."""
        return self.model_dump(mode="json", exclude={*DEFAULTS, *MACHINE})
