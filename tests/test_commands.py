"""Every command of the house shows help with examples, says what each flag is for, and describes its configuration."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from benchmarks.__main__ import benchmarks
from curation.catalogue import STAGES
from curation.thresholds import Thresholds
from engine.specs import StageSpec
from kit.cli import Program, parse, run
from kit.config import load
from kit.fields import describe_fields
from model.request import Request
from tests.conftest import REPOSITORY
from tests.test_floors import FLOORS

# Started by the house itself, and the library's own, which must do without this house's command line.
OTHERS = {"engine.guard", "unitalking_data.__main__"}
# ``ray job submit`` and the like, before the command itself.
COMMAND = re.compile(r"(?:python|torchrun \S+ \S+) -m (\S+)(.*)")


@cache
def programs() -> dict[str, str]:
    """Modules that can be started, by the name that is typed."""
    found = {}
    for path in (path for floor in FLOORS for path in sorted((REPOSITORY / floor).rglob("*.py"))):
        module = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
        if '__name__ == "__main__"' in path.read_text("utf-8") and module not in OTHERS:
            found[module.removesuffix(".__main__")] = module
    return found


def program_of(name: str) -> Program:
    return importlib.import_module(programs()[name]).PROGRAM


@pytest.mark.parametrize("name", programs())
def test_help_has_examples_and_explains_every_flag(name, capsys):
    program = program_of(name)
    assert program.name == f"python -m {name}" and program.description
    calls = [["--help"], *([command, "--help"] for command in program.all_commands if command)]
    for call in calls:
        with pytest.raises(SystemExit) as ended:
            run(program, call)
        said = capsys.readouterr().out
        assert ended.value.code == 0 and "\nexamples:\n  " in said
    for command in program.all_commands.values():
        assert command.help and command.examples
        assert all(argument.settings["help"] for argument in command.arguments)


@pytest.mark.parametrize("name", programs())
def test_examples_are_accepted(name):
    """By the parser of the command that they call."""
    for command in program_of(name).all_commands.values():
        for line in "\n".join(command.examples).replace("\\\n", "").splitlines():
            called, rest = COMMAND.search(line).groups()
            if "--help" not in rest:
                parse(program_of(called), shlex.split(rest))


def models() -> list[type[BaseModel]]:
    """Every model that a command's configuration can hold, settings of stages and the sampler's requests among them."""
    roots: list[Any] = [Thresholds, Request, *(StageSpec(path).cls.Config for path in STAGES.values())]
    for name in programs():
        roots += [command.config.model for command in program_of(name).all_commands.values() if command.config]
    found: dict[type[BaseModel], None] = {}
    for root in roots:
        found |= dict.fromkeys(_within(root, found))
    return list(found)


def _within(kind: Any, seen: dict[type[BaseModel], None]) -> Iterator[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        if kind in seen:
            return
        yield kind
        for field in kind.model_fields.values():
            yield from _within(field.annotation, seen)
    for part in get_args(kind):
        yield from _within(part, seen)


def test_every_field_of_every_configuration_is_described():
    checked = models()
    assert len(checked) > 40
    missing = [
        f"{model.__module__}.{model.__name__}.{name}"
        for model in checked
        for name, text in describe_fields(model).items()
        if not text
    ]
    assert not missing


def test_configurations_have_one_strict_base():
    """Everywhere but in the library, which has its own."""
    found = []
    for path in (path for floor in FLOORS if floor != "unitalking_data" for path in (REPOSITORY / floor).rglob("*.py")):
        classes = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.ClassDef)]
        found += [node.name for node in classes if "BaseModel" in map(ast.unparse, node.bases)]
    assert found == ["Strict"]


def test_the_list_of_benchmarks_is_complete(capsys):
    listed = benchmarks()
    assert {f"benchmarks.{name}" for name in listed} == {name for name in programs() if name.startswith("benchmarks.")}
    assert all(text.endswith(".") for text in listed.values())
    assert run(program_of("benchmarks"), []) == 0
    assert capsys.readouterr().out.count("\n") == len(listed)


def configurations() -> list[tuple[str, str, Path]]:
    """Shipped files, each with a command that reads it."""
    files = {
        ("curation", "run"): "profiles/*.yaml",
        ("pipelines", "release"): "release/*.yaml",
        ("train.stage1", ""): "train/*stage1.yaml",
        ("train.stage2", ""): "train/*stage2.yaml",
        ("train.encode", ""): "train/encode_*.yaml",
        ("model.sample", ""): "sample/*.yaml",
    }
    configs = REPOSITORY / "configs"
    return [(*command, path) for command, pattern in files.items() for path in sorted(configs.glob(pattern))]


@pytest.mark.parametrize(
    ("name", "command", "path"), configurations(), ids=lambda value: value.stem if isinstance(value, Path) else value
)
def test_shipped_configurations_are_shown_and_load_back(name, command, path, tmp_path, capsys):
    program, again = program_of(name), tmp_path / "again.yaml"
    assert run(program, [*filter(None, [command]), "--config", str(path), "--show-config"]) == 0
    again.write_text(capsys.readouterr().out)
    model = program.all_commands[command].config.model
    assert load(again, model) == load(path, model)
