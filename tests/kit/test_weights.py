"""The registry of model files: checksums hold, missing files are named before work, nothing half-fetched stays."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import yaml

from kit import weights
from kit.weights import WeightsError, cache, entries, model_use
from kit.weights.__main__ import main
from unitalking_data import licences


@pytest.fixture
def registry(tmp_path: Path, monkeypatch):
    """A registry of files served from this folder, and an empty cache."""
    (tmp_path / "net.onnx").write_bytes(b"weights")
    common = {"use": "test", "revision": "1", "licence": "MIT"}
    source = {"sources": [{"url": (tmp_path / "net.onnx").as_uri()}], "bytes": None}
    file = {"sha256": None, "bytes": None}
    content = {
        "net": {**common, **source, "sha256": hashlib.sha256(b"weights").hexdigest()},
        "tampered": {**common, **source, "sha256": "0" * 64},
        "unpublished": {**common, **source, "sha256": None},
        "own": common,
        "pair": {
            **{**common, "licence": "CC-BY-NC-4.0", "licence_note": "not for sale"},
            "sources": [{"url": f"{tmp_path.as_uri()}/"}],
            "files": {"net.onnx": file, "gone.onnx": file},
        },
    }
    monkeypatch.setattr(entries, "REGISTRY_FILE", tmp_path / "weights.yaml")
    entries.REGISTRY_FILE.write_text(yaml.safe_dump(content))
    monkeypatch.setenv("UNITALKING_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_fetch_then_resolve(registry):
    with pytest.raises(
        WeightsError, match=r"missing model files:\n  net: test .*\nfetch them with: python -m kit.weights fetch net"
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
    with pytest.raises(WeightsError, match="no folder at the given path"):
        weights.resolve(["pair"], {"pair": registry / "net.onnx"})
    with pytest.raises(WeightsError, match="it has no source"):
        weights.fetch("own")
    with pytest.raises(WeightsError, match="no model named 'unknown'"):
        weights.fetch("unknown")


class TestLocate:
    """A field of a configuration is a path or the name of a model."""

    def test_a_name_is_found_in_the_cache(self, registry):
        path = weights.fetch("net")
        assert weights.locate(["net", registry / "net.onnx"]) == {
            "net": path,
            str(registry / "net.onnx"): registry / "net.onnx",
        }

    def test_a_path_that_exists_comes_first(self, registry, monkeypatch):
        monkeypatch.chdir(registry)
        Path("net").write_bytes(b"my own")
        assert weights.locate(["net"]) == {"net": Path("net")}

    def test_all_that_is_missing_is_named_in_a_line_with_the_command(self, registry):
        with pytest.raises(WeightsError) as error:
            weights.locate(["net", "pair/net.onnx", "pair/gone.onnx", "net"])
        names = "net pair/net.onnx pair/gone.onnx"
        said = f"not in the cache: {names.replace(' ', ', ')}; fetch with: python -m kit.weights fetch {names}"
        assert str(error.value) == said

    def test_what_is_neither_is_named_beside_it(self, registry):
        said = r"^no such file, folder or registered model: nets/mine; not in the cache: net; fetch with: .* fetch net$"
        with pytest.raises(WeightsError, match=said):
            weights.locate(["net", "nets/mine"])


class TestCommand:
    def test_list_shows_state_size_hash_and_terms(self, registry, capsys):
        weights.fetch("net")
        weights.fetch("unpublished")
        weights.fetch("pair/net.onnx")
        assert main(["list"]) == 0
        lines = {line[8:].split()[0]: line for line in capsys.readouterr().out.splitlines()}
        assert lines["net"].startswith("cached") and "7 B" in lines["net"] and "published" in lines["net"]
        assert lines["tampered"].startswith("absent") and "size not stated" in lines["tampered"]
        assert "pinned locally" in lines["unpublished"] and "own" in lines
        assert lines["own"].startswith("by path")
        assert lines["pair"].startswith("1 of 2") and "1 none, 1 pinned locally" in lines["pair"]
        assert "CC-BY-NC-4.0 (NON-COMMERCIAL)" in lines["pair"] and "NON" not in lines["net"]

    def test_verify_names_what_is_wrong(self, registry, capsys):
        weights.fetch("net")
        path = weights.fetch("unpublished")
        assert main(["verify"]) == 0
        assert "ok       unpublished (pinned locally)" in capsys.readouterr().out
        path.write_bytes(b"damaged")
        assert main(["verify"]) == 1
        said = capsys.readouterr().out
        assert "wrong    unpublished: " in said and "ok       net (published)" in said
        assert main(["verify", "net"]) == 0
        assert main(["verify", "tampered"]) == 1
        assert "tampered: not in the cache" in capsys.readouterr().out

    def test_verify_reads_a_large_file_that_looks_untouched(self, registry, capsys, monkeypatch):
        path = weights.fetch("net")
        monkeypatch.setattr(cache, "TRUSTED_BYTES", 0)
        monkeypatch.setattr(cache.CachedFile, "_untouched", lambda file, expected: True)
        path.write_bytes(b"damaged")
        weights.resolve(["net"])
        assert main(["verify"]) == 1

    def test_verify_names_a_file_without_any_hash_and_a_record_without_an_entry(self, registry, capsys):
        path = weights.cached_path("unpublished")
        path.parent.mkdir(parents=True)
        path.write_bytes(b"from somewhere")
        assert main(["verify"]) == 1
        assert "pin it: python -m kit.weights fetch unpublished" in capsys.readouterr().out
        weights.fetch("unpublished")
        entries.REGISTRY_FILE = registry / "empty.yaml"
        entries.REGISTRY_FILE.write_text("net: {use: test, revision: '1', licence: MIT}")
        assert main(["verify"]) == 0
        assert "unknown  unpublished-1.onnx" in capsys.readouterr().out

    def test_exit_codes(self, registry, capsys):
        assert main(["fetch", "net"]) == 0
        assert capsys.readouterr().out == f"net: {weights.cached_path('net')}\n"
        assert main(["fetch", "pair"]) == 1
        said = capsys.readouterr().err
        assert "error: could not fetch pair/gone.onnx: " in said
        assert main(["fetch", "pair/net.onnx"]) == 0
        assert "note: pair is under CC-BY-NC-4.0: no commercial use" in capsys.readouterr().err
        assert main(["verify", "nothing"]) == 2
        assert capsys.readouterr().err == "error: no model named 'nothing' in weights.yaml\n"


class TestUse:
    """Whose model stands behind something, for manifests and cards."""

    def test_a_registered_model_brings_its_terms_and_hash(self, registry):
        weights.fetch("pair/net.onnx")
        use = model_use("pair/net.onnx", "audio_codec.vae")
        assert (use.name, use.kind, use.given, use.revision) == ("pair", "audio_codec.vae", "registry", "1")
        assert (use.licence, use.commercial, use.note) == ("CC-BY-NC-4.0", False, "not for sale")
        assert use.sha256 == hashlib.sha256(b"weights").hexdigest()
        assert use.terms == "CC-BY-NC-4.0, non-commercial"
        assert model_use("pair", "x").sha256 is None and model_use("net", "x").terms == "MIT"

    def test_a_path_has_the_terms_of_the_model_that_it_stands_for(self, registry):
        use = model_use(registry / "net.onnx", "audio_codec.vae", stands_for="pair", hashed=True)
        assert (use.name, use.licence, use.given, use.revision) == ("pair", "CC-BY-NC-4.0", "path", None)
        assert use.sha256 == hashlib.sha256(b"weights").hexdigest()
        unknown = model_use(registry / "net.onnx", "init.video")
        assert (unknown.name, unknown.licence, unknown.commercial) == ("net.onnx", "not known", None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sources": [{"url": "https://host/net"}]}, "state sha256 and bytes; null where the publisher states none"),
        ({"sha256": "abc"}, "sha256: String should match"),
        ({"files": {"../net": {"sha256": None, "bytes": None}}}, "'../net' must be a plain relative path"),
        ({"files": {"/etc/net": {"sha256": None, "bytes": None}}}, "must be a plain relative path"),
        ({"files": {"a/./net": {"sha256": None, "bytes": None}}}, "must be a plain relative path"),
        ({"files": {"net": {"bytes": None}}}, "files.net.sha256: Field required"),
        ({"files": {"net": {"sha256": None, "bytes": None}}, "sha256": None}, "stated for each of the files"),
        ({"revision": "../1"}, "cannot be part of a file name"),
        ({"licence": ""}, "licence: String should have at least 1 character"),
        ({"sources": [{"url": "https://host/net", "file": "net"}]}, "file and folder are for hub sources"),
    ],
)
def test_an_entry_that_is_not_well_formed_is_refused(tmp_path, monkeypatch, change, said):
    file = tmp_path / "weights.yaml"
    file.write_text(yaml.safe_dump({"net": {"use": "test", "revision": "1", "licence": "MIT", **change}}))
    monkeypatch.setattr(entries, "REGISTRY_FILE", file)
    with pytest.raises(WeightsError, match=r"weights\.yaml: net: ") as error:
        weights.registry()
    assert said in str(error.value)


class TestTheProjectsRegistry:
    def test_every_model_of_a_job_is_there(self):
        names = {"silero_vad", "light_asd", "syncnet", "wan2.2-ti2v-5b", "wan2.2-vae", "umt5-xxl"}
        assert names | {"mmaudio-44k", "mmaudio-16k", "bigvgan", "ovi"} <= set(weights.registry())

    def test_hashes_are_stated_where_they_can_be(self):
        for name, weight in weights.registry().items():
            for source in weight.sources:
                assert source.package is None or weight.sha256, f"{name}: a packaged file has a checksum"

    def test_revisions_of_the_hub_are_commits_or_said_to_be_branches(self):
        for name, weight in weights.registry().items():
            if any(source.hub for source in weight.sources):
                commit = len(weight.revision) == 40 and set(weight.revision) <= set("0123456789abcdef")
                assert commit or "branch" in weight.licence_note, name

    def test_licences_are_known_or_explained(self):
        for name, weight in weights.registry().items():
            assert weight.licence in licences.registry() or weight.licence_note, name
        assert weights.lookup("mmaudio-44k").commercial is weights.lookup("mmaudio-16k").commercial is False
