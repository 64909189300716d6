from __future__ import annotations

import json

import pytest
import torch
import yaml
from safetensors import safe_open

from model.config import ModelConfig
from model.weights.export import ModelCard, export_model
from model.weights.load import TensorsError, Weights
from model.weights.transformer import load_model, start_model
from tests.model.helpers import CONFIG, batch, random_model

CARD = ModelCard(name="talker", summary="A test.", started_from=("Wan-AI/Wan2.2-TI2V-5B",), trained_on="nothing")


@pytest.fixture(scope="module")
def model():
    return random_model()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "talker"
    return export_model(path, CONFIG, model.state_dict(), card=CARD, max_shard_bytes=200_000)


@torch.no_grad()
def test_a_model_survives(model, folder):
    again = load_model(folder)
    assert again.config == CONFIG and again.streams == model.streams
    for ours, theirs in zip(model(**batch()), again(**batch())):
        assert torch.equal(ours, theirs)


def test_shards_are_bounded_and_indexed(model, folder):
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) > 2
    index = json.loads((folder / "diffusion_pytorch_model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(model.state_dict()) == set(Weights(folder))
    assert index["metadata"]["total_size"] == sum(p.nbytes for p in model.parameters())
    for shard in shards:
        assert shard.stat().st_size < 220_000
        with safe_open(shard, framework="pt") as handle:  # every checkpoint file says what it is a part of
            assert ModelConfig.model_validate(json.loads(handle.metadata()["config.json"])["model"]) == CONFIG


def test_the_card_says_what_it_is(model, folder):
    card = (folder / "README.md").read_text()
    _, front, body = card.split("---", 2)
    assert yaml.safe_load(front)["base_model"] == ["Wan-AI/Wan2.2-TI2V-5B"]
    assert f"{sum(p.numel() for p in model.parameters()):,}" in body
    assert "| reference_len | 7 |" in body


@torch.no_grad()
def test_one_stream_can_be_taken(model, folder):
    audio = load_model(folder, streams=("audio",), dtype=torch.bfloat16)
    assert audio.streams == ("audio",)
    assert {p.dtype for p in audio.parameters()} == {torch.bfloat16}
    again = load_model(folder, streams=("video",))
    inputs = {name: value for name, value in batch().items() if "audio" not in name}
    assert torch.equal(again(**inputs).video, model(**inputs).video)


def test_a_checkpoint_starts_a_model(model, folder):
    with torch.device("meta"):
        fresh = type(model)(CONFIG)
    video, audio = start_model(fresh, video=folder, audio=folder)
    assert video.loaded + audio.loaded == len(model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), model.parameters()))


def test_nothing_is_overwritten_or_left_half(model, folder, tmp_path):
    with pytest.raises(ValueError, match="exists"):
        export_model(folder, CONFIG, model.state_dict(), card=CARD)
    state = model.state_dict()
    state.pop("audio.head.modulation")
    with pytest.raises(TensorsError, match=r"audio\.head\.head\.weight"):
        export_model(tmp_path / "less", CONFIG, state, card=CARD)
    broken = dict(model.state_dict())
    broken["video.head.modulation"] = broken["video.head.modulation"].to("meta")  # cannot be written
    with pytest.raises(Exception, match="meta"):
        export_model(tmp_path / "broken", CONFIG, broken, card=CARD, max_shard_bytes=50_000)
    assert not list(tmp_path.iterdir())


def test_a_stream_that_is_not_there_is_named(tmp_path):
    half = random_model(streams=("audio",))
    export_model(tmp_path / "half", CONFIG, half.state_dict(), card=CARD)
    with pytest.raises(TensorsError, match="no video stream"):
        load_model(tmp_path / "half", streams=("video", "audio"))
