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

from perception.cnn14 import Cnn14Tagger, audioset_classes, load_checkpoint, published_network
from perception.yamnet import read_classes


def test_the_full_list_has_audiosets_classes(weights: Callable[..., dict[str, Path]]):
    yamnet = read_classes(weights("yamnet_classes")["yamnet_classes"])
    names = audioset_classes(yamnet)
    assert len(yamnet) == 521
    assert len(set(names)) == len(names) - (len(yamnet) - len(set(yamnet))) == 527
    known = {0: "Speech", 16: "Laughter", 27: "Singing", 40: "Whistling", 137: "Music", 283: "Wind", 500: "Silence"}
    assert {index: names[index] for index in known} == known
    assert names[526] == "Field recording"


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
    audio = np.random.default_rng(0).normal(0, 0.1, 64_000).astype(np.float32)
    ours, theirs = (Cnn14Tagger(checkpoint, classes, published=flag, device="cpu")(audio) for flag in (False, True))
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
