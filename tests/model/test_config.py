from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError

from model.config import PRESETS, ModelConfig
from model.transformer import UniTalking


def parameters(config: ModelConfig, **arguments) -> dict[str, int]:
    with torch.device("meta"):
        model = UniTalking(config, **arguments)
    assert all(parameter.is_meta for parameter in model.parameters())
    return {name: parameter.numel() for name, parameter in model.named_parameters()}


def test_paper_has_the_papers_size():
    count = parameters(ModelConfig.preset("paper"))
    assert sum(count.values()) == 11_141_222_632
    with torch.device("meta"):
        parts = UniTalking(ModelConfig.preset("paper")).parameter_counts()
    assert parts["all"] == 11_141_222_632 == parts["video"] + parts["audio"] + parts["reference"]
    assert parts["reference"] == (40 + 1 + 3072 + 1) * 3072
    assert sum(size for name, size in count.items() if "ref" not in name) == 9_998_641_384  # the paper's "10B"
    wan = parameters(ModelConfig.preset("paper"), streams=("video",))
    assert sum(size for name, size in wan.items() if "ref" not in name) == 4_999_787_712  # Wan2.2-TI2V-5B


def test_reference_keys_and_convolutions_are_counted():
    assert sum(parameters(ModelConfig.preset("paper", reference_streams="audio")).values()) == 10_574_715_112
    assert sum(parameters(ModelConfig.preset("paper", audio_input="conv_mlp")).values()) == 11_670_442_216


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name):
    config = ModelConfig.preset(name)
    assert ModelConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    "change", [{"layer": 3}, {"layers": 0}, {"heads": 5}, {"patch": (2, 2, 2)}, {"audio_rope": "other"}]
)
def test_wrong_fields_are_refused(change):
    with pytest.raises(ValidationError):
        ModelConfig.preset("tiny", **change)


def test_unknown_preset_names_the_others():
    with pytest.raises(ValueError, match="paper, small, tiny"):
        ModelConfig.preset("huge")


def test_audio_steps():
    assert ModelConfig.preset("paper").audio_step == pytest.approx(0.142774, abs=1e-6)
    assert ModelConfig.preset("paper", audio_rope="physical").audio_step == pytest.approx(0.139320, abs=1e-6)
    assert ModelConfig.preset("paper", audio_rope="literal").audio_step == 1.0
    ovi = ModelConfig.preset("paper", audio_latent_rate=31.25)
    assert ovi.audio_step == pytest.approx(0.19676, abs=1e-5)  # the constant in Ovi's code
    assert math.isclose(ModelConfig.preset("paper").video_latent_rate, 6.0)
