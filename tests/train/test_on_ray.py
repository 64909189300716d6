"""Started by Ray Train, the trainer is the same."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import ray
import yaml

from tests.train.worlds import recipe, write_world
from train import on_ray


@pytest.fixture
def cluster():
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.timeout(900)  # Ray starts a dozen processes first, which takes minutes where others work too
def test_a_run_of_two_ranks(tmp_path, cluster, monkeypatch, capsys):
    """With the relative paths of the recipes that are shipped; and what goes wrong in it is told in a line a rank."""
    write_world(str(tmp_path / "release"))
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(yaml.safe_dump(recipe("release", "run", steps=2).content()))
    command = ["--config", "recipe.yaml", "--workers", "2", "--failures", "0"]
    assert on_ray.main(command) == 0
    assert [json.loads(line)["step"] for line in Path("run/metrics.jsonl").read_text().splitlines()] == [1, 2]
    assert Path("run/export/diffusion_pytorch_model.safetensors").exists()
    capsys.readouterr()
    assert on_ray.main([*command, "--set", "noise.shift=3"]) == 1
    assert re.match(r"error: rank [01]: noise\.shift: 5\.0 there, 3\.0 here\n", capsys.readouterr().err)


def test_mistakes_are_told_before_ray_starts(tmp_path, capsys):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe(str(tmp_path / "nowhere"), str(tmp_path / "run")).content()))
    for config, word in ((tmp_path / "none.yaml", "none.yaml"), (path, "nowhere")):
        assert on_ray.main(["--config", str(config), "--workers", "2"]) == 2
        assert word in capsys.readouterr().err and not ray.is_initialized()
