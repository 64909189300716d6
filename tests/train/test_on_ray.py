"""Started by Ray Train, the trainer is the same."""

from __future__ import annotations

import json

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
def test_a_run_of_two_ranks(tmp_path, cluster):
    world = write_world(str(tmp_path / "release"))
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe(world, str(tmp_path / "run"), steps=2).content()))
    assert on_ray.main(["--config", str(path), "--workers", "2", "--failures", "0"]) == 0
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2]
    assert (tmp_path / "run" / "export" / "diffusion_pytorch_model.safetensors").exists()


def test_a_bad_recipe_is_told_before_ray_starts(tmp_path, capsys):
    assert on_ray.main(["--config", str(tmp_path / "none.yaml"), "--workers", "2"]) == 2
    assert "none.yaml" in capsys.readouterr().err and not ray.is_initialized()
