"""The profiles that ship are valid: every stage, setting, score and model that they name exists."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.config import CurationConfig, models, resolve_config
from kit.config import load
from kit.weights.entries import parse
from model.codecs.files import file_values
from model.settings import SampleConfig
from train.config import Recipe
from train.encode_config import EncodeConfig

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


@pytest.mark.parametrize("profile", ["cpu", "paper"])
def test_a_profile_resolves_once_its_models_are_there(profile, tmp_path):
    path = str(CONFIGS / "profiles" / f"{profile}.yaml")
    given = []
    for name in models(path):  # any file will do: what is checked here is the configuration
        (tmp_path / name).write_bytes(name.encode())
        given.append(f"weights.{name}={tmp_path / name}")
    curation = resolve_config(path, given)
    assert not curation.fallbacks
    assert {rule.reason for rule in curation.rules} == {
        *("static", "text", "quality", "muted", "no_speech", "noisy", "no_speaker", "unsynced")
    }
    assert all(rule.why for rule in curation.thresholds.rules)
    assert {rule.stage for rule in curation.unapplied} <= {"mouth_motion"}


def test_a_gate_is_looser_than_the_thresholds():
    """Where a gate and a threshold bound the same score, nothing that selection would keep is shut out."""
    for profile in ("cpu", "paper"):
        path = CONFIGS / "profiles" / f"{profile}.yaml"
        config = load(path, CurationConfig)
        rules = {rule.score: rule for rule in resolve_thresholds(config.thresholds)}
        for gate in config.gates:
            for rule in gate.rules:
                assert rule.min <= rules[rule.score].min, (profile, rule.score)


def test_the_configurations_of_the_paper_name_the_same_registered_models():
    sample = load(CONFIGS / "sample/paper.yaml", SampleConfig)
    encode = load(CONFIGS / "train/encode_paper.yaml", EncodeConfig)
    named = file_values((sample.video_codec, sample.audio_codec, sample.text_encoder))
    assert named == file_values(encode.parts.values())
    starts = [load(CONFIGS / f"train/stage{stage}.yaml", Recipe).init for stage in (1, 2)]
    for name in (*named, starts[0].audio, starts[1].video):
        assert parse(name).files, name


def resolve_thresholds(name):
    from curation.thresholds import Thresholds

    return load(CONFIGS / "thresholds" / f"{name}.yaml", Thresholds).rules
