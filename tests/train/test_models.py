"""The models behind latents and weights, and their terms, from the encoder's manifest to an export's card."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml

from kit.weights import ModelUse, WeightsError, cached_path, lookup
from model.codecs.linear_audio import LinearAudioCodec
from model.weights.transformer import load_model
from pipelines.tiny_world.release import write_release as write_clips
from tests.conftest import REPOSITORY
from tests.train.worlds import recipe, write_world
from tests.unitalking_data.releases import finish
from train import cli, encode_shard
from train.checkpoint import STATE
from train.encode import encode
from train.encode_config import EncodeConfig
from train.export import export_checkpoint
from train.loop import Trainer
from train.models import models_behind_run
from train.parallel import start_world
from unitalking_data.manifest import read_manifest
from unitalking_data.storage import Store

MMAUDIO = ModelUse(
    name="mmaudio-44k",
    kind="audio_codec.vae",
    licence="CC-BY-NC-4.0",
    commercial=False,
    note="not for sale",
    given="registry",
)
WORDS = ModelUse(name="umt5-xxl", kind="text_encoder.weights", licence="Apache-2.0", commercial=True, given="registry")


@pytest.fixture
def release(tmp_path) -> str:
    return write_world(str(tmp_path / "world"))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("UNITALKING_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    torch.set_num_threads(1)
    return start_world(recipe("", "").parallel, stall_s=100)


def made_with(release: str, **process) -> None:
    """Write into the manifest of the latents how they were made."""
    store = Store(f"{release}/latents/tiny")
    manifest = read_manifest(store)
    finish(store, replace(manifest, process={**manifest.process, **process}))


class TestLatents:
    def config(self, release: str, **changes) -> EncodeConfig:
        content = {
            "release": release,
            "name": "small",
            "video_codec": {"kind": "linear", "spatial": 16, "temporal": 4, "channels": 4},
            "audio_codec": {"kind": "linear", "rate": 8000, "n_fft": 512, "hop": 200, "mels": 32, "channels": 4},
            "text_encoder": {"kind": "words", "length": 6, "width": 8},
            **{"prompt_style": "plain", "fps": 10.0, "sizes": [[32, 32]], "dtype": "float32", "threads": 1},
            "executor": {"kind": "local"},
        }
        return EncodeConfig.model_validate({**content, **changes})

    def test_the_manifest_names_the_models_and_their_terms(self, tmp_path, monkeypatch):
        """Files given by path have the terms of the models that they stand for, and say that they were given."""
        release = str(tmp_path / "clips")
        write_clips(release, {"train": 2}, shard_clips=2)
        for name in ("v1-44.pth", "vocoder.pt"):
            (tmp_path / name).write_bytes(name.encode())
        plain = self.config(release)
        settings = plain.audio_codec.model_dump(exclude={"kind", "statistics"})
        monkeypatch.setattr(encode_shard, "build_audio_codec", lambda *_: LinearAudioCodec(**settings))
        files = {"vae": str(tmp_path / "v1-44.pth"), "vocoder": str(tmp_path / "vocoder.pt")}
        config = self.config(release, name="mmaudio", audio_codec={"kind": "mmaudio", **files})
        encode(config, lambda line: None)
        process = read_manifest(Store(config.folder)).process
        vae, vocoder = (ModelUse.model_validate(use) for use in process["models"])
        assert (vae.name, vae.licence, vae.commercial, vae.given) == ("mmaudio-44k", "CC-BY-NC-4.0", False, "path")
        assert (vocoder.name, vocoder.licence, vocoder.kind) == ("bigvgan", "MIT", "audio_codec.vocoder")
        assert len(vae.sha256) == 64 and vae.sha256 != vocoder.sha256
        encode(plain, lambda line: None)
        other = read_manifest(Store(plain.folder))
        assert other.process["models"] == [] and set(process) == {"release", "origin", "codecs", "models"}
        tars = [Path(c.folder) / "train-000000.tar" for c in (plain, config)]
        assert tars[0].read_bytes() == tars[1].read_bytes()

    def test_missing_models_are_all_named_before_any_work(self, tmp_path):
        paper = yaml.safe_load((REPOSITORY / "configs/train/encode_paper.yaml").read_text())
        release = str(tmp_path / "clips")
        write_clips(release, {"train": 1}, shard_clips=1)
        config = EncodeConfig.model_validate({**paper, "release": release, "executor": {"kind": "local"}})
        with pytest.raises(
            WeightsError, match=r"not in the cache: wan2\.2-vae, mmaudio-44k, bigvgan, umt5-xxl/models_t5"
        ):
            encode(config, lambda line: pytest.fail(line))
        assert not Path(config.folder).exists() or not list(Path(config.folder).iterdir())


class TestRuns:
    def test_models_of_latents_and_start_are_found(self, release, tmp_path):
        made_with(release, models=[MMAUDIO.model_dump(), WORDS.model_dump()])
        folder = cached_path("wan2.2-ti2v-5b")
        folder.mkdir(parents=True)
        for file in lookup("wan2.2-ti2v-5b").files:
            (folder / file).write_bytes(b"")
        with pytest.raises(WeightsError, match="the registry says"):  # an empty file is not Wan's third shard
            models_behind_run(recipe(release, "", init={"video": "wan2.2-ti2v-5b"}))
        (third,) = folder.glob("*-00003-of-*")
        found = models_behind_run(recipe(release, "", init={"video": str(folder), "audio": str(third)}))
        assert found[:2] == [MMAUDIO, WORDS]
        assert [(use.kind, use.given, use.licence) for use in found[2:]] == [
            ("init.video", "path", "not known"),
            ("init.audio", "path", "not known"),
        ]

    def test_a_registered_start_brings_its_terms(self, release):
        path = cached_path("ovi/model.safetensors")
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
        (use,) = models_behind_run(recipe(release, "", init={"audio": "ovi/model.safetensors"}))
        assert (use.name, use.kind, use.licence, use.given) == ("ovi", "init.audio", "Apache-2.0", "registry")
        assert "CC-BY-NC-4.0" in use.note

    def test_a_published_layout_given_by_path_is_known(self, release, tmp_path):
        file = tmp_path / "wan.safetensors"
        safetensors.torch.save_file({"text_embedding.0.weight": torch.zeros(1)}, file)
        (use,) = models_behind_run(recipe(release, "", init={"video": str(file)}))
        assert (use.name, use.licence, use.given, use.kind) == ("wan2.2-ti2v-5b", "Apache-2.0", "path", "init.video")

    def test_older_latents_are_known_by_the_kinds_of_their_codecs(self, release):
        assert models_behind_run(recipe(release, "")) == []
        kinds = {"video_codec": "wan22", "audio_codec": "mmaudio", "text_encoder": "words", "fps": 24.0}
        made_with(release, origin={"settings": kinds})
        found = models_behind_run(recipe(release, ""))
        assert [use.name for use in found] == ["wan2.2-vae", "mmaudio-44k", "bigvgan"]
        assert found[1].commercial is False

    def test_clips_that_are_encoded_while_they_are_read_bring_their_codecs(self, release, tmp_path):
        settings = TestLatents().config(
            release, audio_codec={"kind": "mmaudio", "vae": "mmaudio-44k", "vocoder": "bigvgan"}
        )
        (tmp_path / "encode.yaml").write_text(yaml.safe_dump(settings.model_dump(mode="json")))
        data = {"release": release, "encode": str(tmp_path / "encode.yaml"), "workers": 0}
        assert [use.name for use in models_behind_run(recipe(release, "", data=data))] == ["mmaudio-44k", "bigvgan"]

    def test_a_missing_start_is_a_line_and_the_command(self, release, world, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(cli, "start_world", lambda *args, **kwargs: world)
        monkeypatch.setattr(cli.dist, "destroy_process_group", lambda: None)
        config = recipe(release, tmp_path / "run", init={"video": "wan2.2-ti2v-5b"})
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(config.content()))
        assert cli.main(2, ["--config", str(tmp_path / "recipe.yaml")]) == 2
        said = capsys.readouterr().err
        assert said.endswith(
            "not in the cache: wan2.2-ti2v-5b; fetch with: python -m kit.weights fetch wan2.2-ti2v-5b\n"
        )
        assert said.count("\n") == 1 and not (tmp_path / "run").exists()


def test_an_export_lists_the_models_and_passes_them_on(release, world, tmp_path):
    made_with(release, models=[MMAUDIO.model_dump(mode="json"), WORDS.model_dump(mode="json")])
    assert Trainer(recipe(release, tmp_path / "one", stage=1, steps=2), world).run()
    export = tmp_path / "one/export"
    card = (export / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["license"] == "other" and front["license_name"] == "non-commercial-models-behind-it"
    assert "| mmaudio-44k | audio_codec.vae | CC-BY-NC-4.0, non-commercial | registry | not for sale |" in card
    assert "No commercial use is permitted of mmaudio-44k (CC-BY-NC-4.0)." in card
    assert [use["name"] for use in json.loads((export / "config.json").read_text())["models"]] == [
        *("mmaudio-44k", "umt5-xxl")
    ]
    assert load_model(export).streams == ("audio",)

    made_with(release, models=[])
    assert Trainer(recipe(release, tmp_path / "two", steps=1, init={"audio": str(export)}), world).run()
    assert "| mmaudio-44k |" in (tmp_path / "two/export/README.md").read_text()


def test_a_checkpoint_without_models_says_that_they_are_not_recorded(release, world, tmp_path):
    Trainer(recipe(release, tmp_path / "run", steps=1), world).run()
    export = tmp_path / "run/export"
    assert "None: codecs and a start without published weights." in (export / "README.md").read_text()
    (path,) = (tmp_path / "run/checkpoints").glob("step-00000001")
    state = json.loads((path / STATE).read_text())
    del state["models"]
    (path / STATE).write_text(json.dumps(state))
    old = export_checkpoint(path, tmp_path / "old")
    assert "Not recorded." in (old / "README.md").read_text()
    assert "models" not in json.loads((old / "config.json").read_text()) and load_model(old)
    tensors, others = (
        safetensors.torch.load_file(folder / "diffusion_pytorch_model.safetensors") for folder in (old, export)
    )
    assert tensors.keys() == others.keys() and all(torch.equal(tensors[name], others[name]) for name in tensors)
