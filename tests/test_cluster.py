"""``ray_cluster.yaml`` is what Ray's own launcher accepts, with a head that does no work."""

from __future__ import annotations

from pathlib import Path

import yaml

FILE = Path(__file__).resolve().parents[1] / "ray_cluster.yaml"


def test_rays_launcher_accepts_it():
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load(FILE.read_text())
    validate_config(prepare_config(config))


def test_the_head_does_no_work_and_both_kinds_of_worker_scale():
    config = yaml.safe_load(FILE.read_text())
    types = config["available_node_types"]
    head = types.pop(config["head_node_type"])
    assert head["resources"]["CPU"] == head["resources"]["GPU"] == 0
    assert any(node["resources"].get("GPU", 0) > 0 for node in types.values())
    assert any("GPU" not in node["resources"] for node in types.values())
    assert all(node["min_workers"] < node["max_workers"] for node in types.values())
    assert sum(node["max_workers"] for node in types.values()) <= config["max_workers"]
