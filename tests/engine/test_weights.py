"""The registry of model files: checksums hold, missing files are named before work, nothing half-fetched stays."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import yaml

from engine import weights
from engine.weights import WeightsError


@pytest.fixture
def registry(tmp_path: Path, monkeypatch):
    """A registry of one file served from this folder, and an empty cache."""
    (tmp_path / "net.onnx").write_bytes(b"weights")
    common = {"use": "test", "revision": "1", "licence": "MIT"}
    served = {**common, "sources": [{"url": (tmp_path / "net.onnx").as_uri()}]}
    entries = {
        "net": {**served, "sha256": hashlib.sha256(b"weights").hexdigest()},
        "tampered": {**served, "sha256": "0" * 64},
        "own": common,
    }
    file = tmp_path / "weights.yaml"
    file.write_text(yaml.safe_dump(entries))
    parsed = weights.registry(file)
    monkeypatch.setattr(weights, "registry", lambda: parsed)
    monkeypatch.setenv("UNITALKING_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_fetch_then_resolve(registry):
    with pytest.raises(
        WeightsError, match=r"missing model files:\n  net: test .*\nfetch them with: python -m engine.weights fetch net"
    ):
        weights.resolve(["net"])
    path = weights.fetch("net")
    assert weights.resolve(["net"]) == {"net": path} and path.read_bytes() == b"weights"


def test_a_wrong_checksum_is_refused_and_leaves_nothing(registry):
    with pytest.raises(WeightsError, match="sha256"):
        weights.fetch("tampered")
    assert not list((registry / "cache").rglob("*tampered*"))


def test_a_file_damaged_in_the_cache_is_noticed(registry):
    weights.fetch("net").write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="delete it and fetch again"):
        weights.resolve(["net"])


def test_explicit_paths(registry):
    assert weights.resolve(["own"], {"own": registry / "net.onnx"}) == {"own": registry / "net.onnx"}
    with pytest.raises(WeightsError, match="no file at the given path"):
        weights.resolve(["own"], {"own": "absent.onnx"})
    with pytest.raises(WeightsError, match="it has no source"):
        weights.fetch("own")
    with pytest.raises(WeightsError, match="no model named 'unknown'"):
        weights.fetch("unknown")


def test_the_projects_registry_is_well_formed():
    entries = weights.registry()
    assert {"silero_vad", "light_asd", "syncnet"} <= set(entries)
    for name, weight in entries.items():
        assert weight.licence and weight.revision, name
        for source in weight.sources:
            assert source.package is None or weight.sha256, f"{name}: a packaged file has a checksum"
