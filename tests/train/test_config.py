"""Recipes are strict, and a resumed run is the run it continues."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from kit.config import ConfigError, load
from model.config import ModelConfig
from model.settings import SampleConfig
from tests.conftest import REPOSITORY
from tests.train.worlds import recipe
from train.config import Recipe
from train.data import bounds
from train.encode_config import EncodeConfig
from unitalking_data.buckets import Buckets

CONFIGS = REPOSITORY / "configs"
FILES = sorted([*CONFIGS.glob("train/*.yaml"), *CONFIGS.glob("demo/*.yaml")])
ENCODERS = [path for path in FILES if path.stem.startswith("encode")]
RECIPES = [path for path in FILES if path not in ENCODERS and path.stem != "sample"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_recipes_of_the_repository_are_valid(path):
    read = load(path, Recipe)
    assert Recipe.model_validate(read.content()) == read
    assert abs(sum(read.tasks.values()) - 1) < 1e-12


@pytest.mark.parametrize("path", ENCODERS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_encoders_configurations_are_valid(path):
    assert load(path, EncodeConfig).release


@pytest.mark.parametrize(
    ("sample", "recipe_file", "encoder"),
    [("sample/tiny_world", "train/tiny_stage2", "train/encode_tiny"), ("demo/sample", "demo/stage2", "demo/encode")],
)
def test_what_is_trained_on_is_what_is_sampled(sample, recipe_file, encoder):
    """The same model, the same codecs, the same frames a second."""
    sampling = load(CONFIGS / f"{sample}.yaml", SampleConfig)
    trained, encoded = load(CONFIGS / f"{recipe_file}.yaml", Recipe), load(CONFIGS / f"{encoder}.yaml", EncodeConfig)
    assert sampling.model == trained.model and sampling.model.fps == encoded.fps
    assert sampling.text_encoder == encoded.text_encoder and sampling.shift == trained.noise.shift
    assert [sampling.width, sampling.height] == list(encoded.sizes[0])
    for stream in ("video_codec", "audio_codec"):
        assert getattr(sampling, stream).model_copy(update={"statistics": None}) == getattr(encoded, stream)


def test_the_papers_recipes_say_what_the_paper_says():
    for stage, batch in ((1, 256), (2, 64)):
        read = load(REPOSITORY / f"configs/train/stage{stage}.yaml", Recipe)
        assert (read.stage, read.batch, read.steps) == (stage, batch, 100_000)
        assert (read.optimizer.lr, read.optimizer.betas) == (1e-5, (0.9, 0.999))
        assert read.model == ModelConfig.preset("paper")


@pytest.mark.parametrize("name", ["stage2", "lora"])
def test_the_papers_buckets_are_what_the_papers_encoder_makes(name):
    encoder = load(CONFIGS / "train/encode_paper.yaml", EncodeConfig)
    read = load(CONFIGS / f"train/{name}.yaml", Recipe)
    widths, heights = np.array(encoder.sizes).T
    buckets = Buckets(read.data.durations_s, read.data.aspects)
    for frames in (49, 73, 97, 121, 237):  # of what the profile cuts, 3 s to 10 s, and less
        found, places = buckets.assign(np.full(len(widths), frames / encoder.fps), widths, heights)
        assert len(set(places.tolist())) == len(widths)
        assert all(abs(bucket.duration_s * encoder.fps - min(frames, 121)) < 0.01 for bucket in found)


def test_the_papers_longest_bucket_is_what_the_estimate_is_for(tmp_path):
    read = load(CONFIGS / "train/stage2.yaml", Recipe)
    for seconds, frames, length in ((121 / 24, 31, 218), (240 / 24, 31, 218), (120 / 24, 25, 175)):
        assert bounds(read.data, read.model, seconds) == (frames, length)
    assert (read.estimate.video[0], read.estimate.audio) == (31, 218)


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("sigma_shift", 5, "sigma_shift"),
        ("noise.shfit", 5, "shfit"),
        ("shares.t2va", 1, "t2va"),
        ("shares.tts", -1, "negative"),
        ("drop.text", 0.95, "exclusive"),
        ("trained", "paper", "stage 2"),
        ("model.heads", 7, "heads"),
        ("data.texts.tr2va", {"detailed": 1}, "tr2va"),
        ("data.texts.default", {"detialed": 1}, "detialed"),
        ("validation.sample", "a.yaml", "need each other"),
        ("lora.rank", 4, "init.audio"),
    ],
)
def test_a_mistake_is_named(tmp_path, key, value, word):
    content = recipe("release", "out").content()
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    load(path, Recipe)
    with pytest.raises(ConfigError, match=word):
        load(path, Recipe, [f"{key}={yaml.safe_dump(value, default_flow_style=True).removesuffix('...').strip()}"])


def test_stage_1_has_no_video():
    with pytest.raises(ValidationError, match="audio half alone"):
        recipe("release", "out", stage=1, shares={"t2av": 1})


def test_what_decides_the_losses_must_not_change_and_the_rest_may():
    one = recipe("release", "out")
    faster = {"parallel": {"device": "cpu", "micro_batch": 2}, "log": {"every": 7}, "checkpoint": {"every": 3}}
    moved = recipe("release", "elsewhere", **faster)
    assert one.changes(moved.content()) == []
    other = recipe("release", "out", noise={"shift": 3}, seed=4)
    assert one.changes(other.content()) == ["seed: 4 there, 3 here", "noise.shift: 3.0 there, 5.0 here"]
    assert one.changes(one.content() | {"gone": {"field": 1}}) == ["gone.field: 1 there, None here"]
