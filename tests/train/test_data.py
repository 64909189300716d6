"""Training samples: the take and the prompt variant of an epoch, and what is cut or refused."""

from __future__ import annotations

from types import SimpleNamespace

import pyarrow as pa
import pytest
import safetensors.torch
import torch

from tests.train.worlds import recipe
from train.config import DataConfig
from train.data import LatentReader, TrainingClips
from unitalking_data.prompts import draw_take

KEYS = ["a", "b"]


class Clips:
    """Two stored clips, the second without reference voices; it counts what is read."""

    release, split, seed = "r1", "train", 5
    index = SimpleNamespace(keys=pa.array(KEYS), duration_s=[1.0, 1.0])

    def __init__(self) -> None:
        self.reads = 0
        takes = {f"ref{take}": torch.full((3, 7 + take), float(take)) for take in range(3)}
        texts = {"text.short": torch.ones(2, 8), "text.null": torch.zeros(1, 8)}
        latents = {"video": torch.zeros(4, 5, 4, 4), "audio": torch.zeros(3, 10)}
        self._stored = [safetensors.torch.save(latents | texts | takes), safetensors.torch.save(latents | texts)]

    def clip(self, number: int, epoch: int) -> dict:
        self.reads += 1
        return {"key": KEYS[number], "latents.safetensors": self._stored[number]}


def training_clips(source: LatentReader, **changes) -> TrainingClips:
    config = DataConfig.model_validate({"release": "r", "latents": "tiny"} | changes)
    return TrainingClips(source, config, recipe("r", "out").model, streams=("video", "audio"))


@pytest.mark.parametrize("in_memory", [False, True])
def test_the_take_is_the_one_drawn_for_key_epoch_and_seed(in_memory):
    clips = Clips()
    samples = training_clips(LatentReader(clips, in_memory=in_memory))
    drawn = [int(samples.clip(0, epoch)["reference"][0, 0]) for epoch in range(20)]
    assert drawn == [draw_take(3, key="a", epoch=epoch, seed=5) for epoch in range(20)] and set(drawn) == {0, 1, 2}
    assert clips.reads == (1 if in_memory else 20)
    assert samples.clip(1, 0)["reference"] is None


def test_a_sample_knows_its_clip_and_the_release():
    samples = training_clips(LatentReader(Clips()))
    assert (samples.release, samples.split, samples.seed) == ("r1", "train", 5)
    assert samples.clip(1, 3)["name"] == "b|3"


def test_a_variant_that_the_clip_lacks_is_not_drawn():
    samples = training_clips(LatentReader(Clips()), texts={"default": {"short": 1, "fused": 9}, "tts": {"fused": 1}})
    with pytest.warns(UserWarning, match="data.texts.tts"):
        texts = samples.clip(0, 0)["texts"]
    assert texts["default"].shape == (2, 8) and texts["tts"].shape == (1, 8)


def test_latents_of_other_channels_are_refused_by_key():
    config = DataConfig(release="r", latents="tiny")
    model = recipe("r", "out").model.model_copy(update={"audio_channels": 7})
    samples = TrainingClips(LatentReader(Clips()), config, model, streams=("audio",))
    with pytest.raises(ValueError, match="audio latents of a have 3 channels, the model 7"):
        samples.clip(0, 0)


def test_latents_that_cannot_be_read_are_named():
    clips = Clips()
    clips._stored[1] = b"cut"
    with pytest.raises(ValueError, match="latents of b are not readable"):
        training_clips(LatentReader(clips)).clip(1, 0)
