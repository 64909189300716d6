from __future__ import annotations

import importlib.util
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from curation.audio.cnn14 import Cnn14, Cnn14Tagger, load_checkpoint, published_network
from curation.audio.events import Events, EventsConfig
from engine.stage import Value

from .conftest import media_of, opened


def test_the_panns_backend_runs_from_a_checkpoint(
    tmp_path: Path, weights: Callable[..., dict[str, Path]], interview: np.ndarray
):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    checkpoint = tmp_path / "cnn14.pth"
    front_end = {"spectrogram_extractor.stft.conv_real.weight": torch.zeros(1)}
    torch.save({"model": Cnn14().state_dict() | front_end}, checkpoint)
    stage = Events(EventsConfig(backend="panns"))
    assert stage.weights() == ("panns_cnn14", "yamnet_classes")
    stage.setup(weights("yamnet_classes") | {"panns_cnn14": checkpoint})
    (outcome,) = stage.score([opened(media_of(interview[:24_000]))])
    assert isinstance(outcome, Value)
    assert len(outcome.values["speech_over_time"]) == 3
    assert all(0 <= score <= 1 for score in outcome.values["speech_over_time"])


@pytest.mark.skipif(
    importlib.util.find_spec("panns_inference") is None, reason="needs the extra 'panns' (panns_inference)"
)
def test_the_network_equals_the_published_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: Callable[..., dict[str, Path]]
):
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.manual_seed(0)
    reference = published_network()
    for module in reference.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    checkpoint = tmp_path / "cnn14.pth"
    torch.save({"model": reference.state_dict()}, checkpoint)
    classes = weights("yamnet_classes")["yamnet_classes"]
    sound = np.random.default_rng(0).normal(0, 0.1, 64_000).astype(np.float32)
    ours, theirs = (Cnn14Tagger(checkpoint, classes, published=flag, device="cpu")(sound) for flag in (False, True))
    assert ours.std() > 1e-3
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert not (tmp_path / "panns_data").exists()


def test_without_the_package_its_backend_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="unitalking\\[panns\\]"):
        published_network()


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path):
    class Payload:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "ran"),)

    checkpoint = tmp_path / "bad.pth"
    checkpoint.write_bytes(pickle.dumps({"model": Payload()}, protocol=2))
    with pytest.raises(ValueError, match=r"bad\.pth"):
        load_checkpoint(checkpoint)
    assert not (tmp_path / "ran").exists()
    torch.save({"weights": {}}, checkpoint)
    with pytest.raises(ValueError, match=r"bad\.pth"):
        load_checkpoint(checkpoint)
