"""Configuration of the sampler: a strict YAML file, see ``configs/sample/``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model.codecs.build import AudioCodecConfig, TextEncoderConfig, VideoCodecConfig
from model.config import ModelConfig
from model.guidance import Guidance
from model.request import RequestError

DEFAULTS = ("negative_prompt", "seconds", "height", "width", "seed")
MACHINE = ("batch_size", "device", "offload", "compile")


class SampleConfig(BaseModel):
    """What samples are made with; a request says which samples.

    Attributes:
        model: a preset's name, ``{preset: name, field: value, …}``, or all fields.
        weights: the transformer's, a safetensors file or folder; None needs an explicit random start.
        negative_prompt, seconds, height, width: for requests that do not say.
        seed: likewise.
        batch_size: samples of one task and shape that go through the network together.
        device: ``auto`` takes a GPU where there is one.
        dtype: of the transformer; the solver's state is float32 always.
        offload: keep the network, codecs and text encoder in main memory while they do not work.
        compile: ``torch.compile`` every block of the network.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

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

    @classmethod
    def read(cls, path: str | Path, **changes: Any) -> Self:
        """The file's configuration with top-level fields replaced by ``changes``.

        Raises:
            RequestError: no such file, not YAML, an unknown key or a bad value.
        """
        try:
            content = yaml.safe_load(Path(path).read_text("utf-8"))
        except OSError as error:
            raise RequestError(f"cannot read the configuration {path}: {error.strerror}") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise RequestError(f"{path} is not YAML: {error}") from None
        if not isinstance(content, dict):
            raise RequestError(f"{path}: expected keys and values, found {type(content).__name__}")
        try:
            return cls.model_validate({**content, **changes})
        except ValidationError as error:
            lines = [f"  {'.'.join(map(str, e['loc'])) or '(top)'}: {e['msg']}" for e in error.errors()]
            raise RequestError(f"{path} is not valid:\n" + "\n".join(lines)) from None

    def request_defaults(self) -> dict[str, Any]:
        return self.model_dump(include=set(DEFAULTS))

    def torch_device(self) -> torch.device:
        """Raises RequestError for a device that is not there."""
        name = self.device if self.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        try:
            torch.empty(0, device=name)
        except (RuntimeError, AssertionError) as error:
            raise RequestError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from None
        return torch.device(name)

    def content(self) -> dict[str, Any]:
        """As JSON, what decides a sample besides its request: not where and how fast it is computed."""
        return self.model_dump(mode="json", exclude={*DEFAULTS, *MACHINE})
