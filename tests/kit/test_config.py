"""Configuration: strict, overridable, and clear about what is wrong."""

from __future__ import annotations

import pytest

from engine.config import ExecutorConfig, GroupConfig
from kit.config import ConfigError, Strict, load


class Example(Strict):
    root: str
    groups: tuple[GroupConfig, ...] = ()
    executor: ExecutorConfig = ExecutorConfig()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("root: a\ngroups: [{name: one, stages: {x: {}}}, {name: two, stages: {y: {level: 1}}}]\n")
    return path


def test_overrides_reach_nested_keys_and_named_list_entries(file):
    overrides = [
        "root=b",
        "executor.kind=local",
        "groups.two.batch_size=3",
        "groups.0.pool.gpus=0.5",
        "groups.two.stages.y.level=2",
    ]
    config = load(file, Example, overrides)
    assert (config.root, config.executor.kind, config.groups[1].batch_size) == ("b", "local", 3)
    assert (config.groups[0].pool.gpus, config.groups[1].stages["y"]["level"]) == (0.5, 2)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("rot=1", "rot: Extra inputs"),
        ("groups.three.batch_size=1", "no entry 'three'"),
        ("groups.one.batch_size=0", "groups.0.batch_size"),
        ("executor.kind=spark", "executor.kind"),
        ("noequals", "takes key.sub=value"),
        ("root.deeper=1", "root is a value"),
        ("root=[unclosed", "not a YAML value"),
    ],
)
def test_a_wrong_override_is_named(file, override, says):
    with pytest.raises(ConfigError) as error:
        load(file, Example, [override])
    assert says in str(error.value)


def test_missing_and_malformed_files_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read the configuration .*absent\.yaml"):
        load(tmp_path / "absent.yaml", Example)
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match=r"bad\.yaml is not YAML"):
        load(tmp_path / "bad.yaml", Example)
    (tmp_path / "list.yaml").write_text("[1]")
    with pytest.raises(ConfigError, match="expected keys and values, found list"):
        load(tmp_path / "list.yaml", Example)
