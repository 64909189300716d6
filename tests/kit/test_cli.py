"""The command line: default commands, help with examples, exit codes, and configurations that explain themselves."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, Field

from kit.cli import BROKEN_PIPE, Command, ConfigFile, Program, argument, parse, run, set_argument
from kit.config import Place, Strict, load
from kit.errors import Fault, UserError
from tests.conftest import REPOSITORY


class Pool(Strict):
    """What one worker takes."""

    cpus: float = Field(1.0, description="cores")
    name: str = Field("", description="of the pool")


class Example(Strict):
    """A job.

    Attributes:
        root: where it goes.
        inputs: what it reads.
        low, high: bounds,
            both inclusive.
        stages: settings of :class:`Pool`, by name.
    """

    root: str
    inputs: tuple[str, ...] = ()
    low: float = 0.0
    high: float | None = None
    pool: Pool = Pool()
    pools: tuple[Pool, ...] = ()
    stages: dict[str, dict[str, Any]] = Field(default_factory=dict)


def settings_of(place: Place) -> type[BaseModel] | None:
    return Pool if len(place) == 2 and place[0] == "stages" else None


def program(answer: Any = 0) -> Program:
    """``run`` by default, which answers so or raises it, and ``look``."""

    def act(options: Any) -> int:
        if isinstance(answer, BaseException):
            raise answer
        return answer(options) if callable(answer) else answer

    config = ConfigFile(Example, "configs/*.yaml", settings_of=settings_of)
    needed = argument("--out", help="folder", required=True)
    commands = {
        "run": Command(act, "do it", ["python -m example run --config a.yaml --out b"], [needed], config),
        "look": Command(act, "look at it", ["python -m example look"], [argument("names", nargs="+", help="whose")]),
    }
    return Program("python -m example", "An example.", commands, default="run")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.yaml"
    path.write_text("root: there\npools: [{name: one}, {name: two, cpus: 2}]\nstages: {fast: {cpus: 3}, slow: {}}\n")
    return path


def call(file: Path, *arguments: str) -> list[str]:
    return ["--config", str(file), "--out", "x", *arguments]


def test_a_command_line_without_command_means_the_default(file):
    seen = []
    work = program(lambda options: seen.append(options.command) or 0)
    assert run(work, call(file)) == run(work, ["run", *call(file)]) == run(work, ["look", "a"]) == 0
    assert seen == ["run", "run", "look"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: --config, --out; see python -m example --help"),
        (["look"], "the following arguments are required: names; see python -m example look --help"),
        (["--config", "a", "--out", "b", "--sett", "c=1"], "unrecognized arguments: --sett c=1"),
        (["rnu"], "invalid choice: 'rnu'"),
    ],
)
def test_a_wrong_command_line_is_one_line_that_points_at_the_help(arguments, message, capsys):
    assert run(program(), arguments) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and said.err.count("\n") == 1 and message in said.err and not said.out


def test_help_lists_commands_examples_and_every_flag(capsys):
    for arguments, words in (
        (["--help"], ["do it (the default)", "look at it", "python -m example look", "run --config a.yaml"]),
        (["run", "--help"], ["--config FILE", "--set KEY=VALUE", "--show-config", "--out", "run --config a.yaml"]),
    ):
        with pytest.raises(SystemExit) as ended:
            run(program(), arguments)
        said = capsys.readouterr().out
        assert ended.value.code == 0 and all(word in said for word in words), said


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UserError("give another"), 2, "error: give another\n"),
        (Fault("it broke"), 1, "error: it broke\n"),
        (ValueError("no such split"), 2, "error: no such split\n"),
        (FileNotFoundError(2, "No such file or directory", "a.txt"), 2, "error: No such file or directory: a.txt\n"),
        (FileNotFoundError("run it first"), 2, "error: run it first\n"),
        (OSError(28, "No space left"), 1, "error: No space left; what was finished is kept, run again to go on\n"),
        (KeyboardInterrupt(), 130, "stopped; run again to go on\n"),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error, code, message, file, capsys):
    assert run(program(error), call(file)) == code
    assert capsys.readouterr().err == message


def test_the_answer_is_the_exit_code(file):
    assert run(program(143), call(file)) == 143


def test_a_defect_keeps_its_traceback(file):
    with pytest.raises(RuntimeError, match="a defect"):
        run(program(RuntimeError("a defect")), call(file))


def test_the_traceback_of_any_error_can_be_asked_for(file, capsys, monkeypatch):
    monkeypatch.setenv("UNITALKING_TRACEBACK", "1")
    assert run(program(ValueError("odd")), call(file)) == 2
    assert "Traceback" in (said := capsys.readouterr().err) and said.startswith("error: odd\n")


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    code = (
        "import sys; from kit.cli import Command, Program, run\n"
        "def many(options):\n    for n in range(200_000): print(n)\n    return 0\n"
        "sys.exit(run(Program('p', '', Command(many, 'h', ['p']))))"
    )
    reader, writer = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    os.read(reader, 10)
    os.close(reader)
    assert process.communicate()[1] == b"" and process.returncode == BROKEN_PIPE


def shown(file: Path, capsys, *arguments: str) -> str:
    assert run(program(RuntimeError("no work")), [*arguments, "--config", str(file), "--show-config"]) == 0
    return capsys.readouterr().out


def test_the_shown_configuration_loads_back(file, tmp_path, capsys):
    overrides = ["inputs=['a: b', 'c # d', \"two\\nlines\"]", "pools.two.cpus=4", "high=1e-5", "stages.fast.cpus=4"]
    flags = [part for override in overrides for part in ("--set", override)]
    (tmp_path / "again.yaml").write_text(shown(file, capsys, *flags))
    assert load(tmp_path / "again.yaml", Example) == load(file, Example, overrides)


def test_the_shown_configuration_says_what_fields_mean_and_where_values_come_from(file, capsys):
    said = shown(file, capsys, "--set", "high=2", "--set", "pools.two.name=deux", "--set", "stages.fast.name=x")
    assert said.splitlines() == [
        f"# A job. Read from {file}.",
        "# where it goes.",
        "root: there  # the file",
        "# what it reads.",
        "inputs: []  # default",
        "# bounds, both inclusive.",
        "low: 0.0  # default",
        "# bounds, both inclusive.",
        "high: 2.0  # --set",
        "# What one worker takes.",
        "pool:  # default",
        "  # cores",
        "  cpus: 1.0  # default",
        "  # of the pool",
        "  name: ''  # default",
        "# What one worker takes.",
        "pools:  # the file",
        "  - # cores",
        "    cpus: 1.0  # default",
        "    # of the pool",
        "    name: one  # the file",
        "  - # cores",
        "    cpus: 2.0  # the file",
        "    # of the pool",
        "    name: deux  # --set",
        "# settings of `Pool`, by name.",
        "stages:  # the file",
        "  fast:  # the file",
        "    # cores",
        "    cpus: 3  # the file",
        "    # of the pool",
        "    name: x  # --set",
        "  slow: {}  # the file",
        "    # cores",
        "    # cpus: 1.0  # default",
        "    # of the pool",
        "    # name: ''  # default",
    ]
    assert yaml.safe_load(said)["stages"] == {"fast": {"cpus": 3, "name": "x"}, "slow": {}}


def test_a_wrong_configuration_is_not_shown(file, capsys):
    assert run(program(), ["--config", str(file), "--show-config", "--set", "stages.slow.gpus=1"]) == 2
    said = capsys.readouterr()
    assert said.err == "error: stages.slow is not valid:\n  gpus: Extra inputs are not permitted\n" and not said.out


def test_a_program_of_one_command_needs_no_name():
    count = argument("--count", help="how many", type=int, default=3)
    one = Program("p", "One.", Command(lambda options: options.count, "h", ["p"], [count, set_argument("it")]))
    assert (run(one, []), run(one, ["--count", "5"])) == (3, 5)
    assert parse(one, ["--set", "a=1", "--set", "b=2"])[1].overrides == ["a=1", "b=2"]
    assert parse(one, [])[1].overrides == []


def test_the_log_can_be_json(file, capsys):
    def work(options: Any) -> int:
        logging.getLogger("curation.job").info("a notice")
        raise Fault("it broke")

    assert run(program(work), call(file, "--log", "json")) == 1
    records = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(record["level"], record["logger"], record["message"]) for record in records] == [
        ("info", "curation.job", "a notice"),
        ("error", "kit.cli", "it broke"),
    ]
