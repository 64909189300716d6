"""The command line of the house: one way to declare a program, one map from errors to exit codes.

A module that can be started declares a program, and :func:`run` does the rest::

    PROGRAM = Program(
        "python -m curation",
        "Find the good talking portraits in a collection of videos.",
        {"run": Command(_run, "list, score and select", ["python -m curation --config mine.yaml"], config=CONFIG), …},
        default="run",
    )

It parses, shows help with examples, shows the resolved configuration, writes log records to standard error, and ends
with an exit code:

====  ==================================================================================================
0     the work is done
1     a fault: a full disk, a lost cluster; what was finished is kept, and the same command goes on
2     a mistake of the user's; one line says what to change
130   stopped with Ctrl-C
141   the reader of standard output went away (``| head``)
143   stopped with SIGTERM, which the trainers answer with a checkpoint
====  ==================================================================================================

An exception that no row of :data:`EXIT_CODES` names is a defect of the program and keeps its traceback;
``UNITALKING_TRACEBACK=1`` shows those of the others as well.
"""

from __future__ import annotations

import argparse
import logging
import os
import select
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from pydantic import BaseModel

from kit import logs
from kit.config import check, read
from kit.config_text import SettingsOf, config_text, no_settings
from kit.errors import Fault, UserError

# The first type that fits counts. The house's own errors are UserError or Fault; those of the library that other
# teams install, of model loading and of configuration values are ValueErrors.
EXIT_CODES: Mapping[type[BaseException], int] = {
    KeyboardInterrupt: 130,
    Fault: 1,
    UserError: 2,
    FileNotFoundError: 2,
    OSError: 1,
    ValueError: 2,
}
BROKEN_PIPE = 141
GO_ON = "what was finished is kept, run again to go on"
TRACEBACK = "UNITALKING_TRACEBACK"
SHOW_CONFIG = "--show-config"
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Argument:
    """A flag or a positional argument; ``group`` is its heading in the help."""

    flags: tuple[str, ...]
    settings: Mapping[str, Any]
    group: str = ""


def argument(*flags: str, help: str, group: str = "", **settings: Any) -> Argument:
    """Declare what ``ArgumentParser.add_argument`` takes; a default that says something is added to the help."""
    if settings.get("default") not in (None, "", [], False):
        help += " (default: %(default)s)"
    return Argument(flags, {"help": help, **settings}, group)


def set_argument(what: str) -> Argument:
    """The flag that changes settings of ``what``; ``options.overrides`` holds its values."""
    text = f"change one setting of {what}; the value is YAML, list entries go by number or name; may be repeated"
    return argument("--set", help=text, action="append", default=[], metavar="KEY=VALUE", dest="overrides")


@dataclass(frozen=True)
class ConfigFile:
    """The configuration of a command; adds ``--config``, ``--set`` and ``--show-config``.

    Attributes:
        model: what the file is checked by.
        files: which files are meant, for the help.
        default: the file that is read without ``--config``; none makes the flag necessary.
        settings_of: see :func:`kit.config_text.config_text`.
    """

    model: type[BaseModel]
    files: str
    default: str | None = None
    settings_of: SettingsOf = no_settings

    def arguments(self) -> tuple[Argument, ...]:
        needed = {"required": True} if self.default is None else {"default": self.default}
        return (
            argument("--config", help=f"YAML file, see {self.files}", metavar="FILE", **needed),
            set_argument("it, a.b=c"),
            argument(
                SHOW_CONFIG,
                help="print the resolved configuration, with each field's description and origin, and do nothing",
                action="store_true",
            ),
        )

    def text(self, options: argparse.Namespace) -> str:
        content = read(options.config, options.overrides)
        return config_text(check(content.values, self.model, options.config), content, self.settings_of)


@dataclass(frozen=True)
class Command:
    """One thing that a program does.

    Attributes:
        run: does it; its answer is the exit code.
        help: a line.
        examples: command lines, at least one.
        arguments: besides those of the configuration.
        config: the configuration, if it has one.
    """

    run: Callable[[argparse.Namespace], int]
    help: str
    examples: Sequence[str]
    arguments: Sequence[Argument] = ()
    config: ConfigFile | None = None


@dataclass(frozen=True)
class Program:
    """What ``python -m`` starts.

    Attributes:
        name: as it is typed, ``python -m curation``.
        description: what it is for.
        commands: the one command, or several by name.
        default: which of several runs where the command line names none.
    """

    name: str
    description: str
    commands: Command | Mapping[str, Command]
    default: str = ""

    @property
    def all_commands(self) -> Mapping[str, Command]:
        return {"": self.commands} if isinstance(self.commands, Command) else self.commands


def run(program: Program, arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; return the exit code."""
    try:
        command, options = parse(program, arguments)
    except UserError as error:
        with logs.attached():
            return _explain(error)
    with logs.attached(options.log):
        try:
            code = _run(command, options)
            sys.stdout.flush()
        except BrokenPipeError as error:
            return BROKEN_PIPE if _reader_is_gone() else _explain(error)
        except tuple(EXIT_CODES) as error:
            return _explain(error)
    return code


def parse(program: Program, arguments: Sequence[str] | None = None) -> tuple[Command, argparse.Namespace]:
    """Return the command and its options.

    Raises:
        UserError: the command line is wrong.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = _program_parser(program, showing=SHOW_CONFIG in given, pointing=bool(given))
    if program.default and (not given or (given[0].startswith("-") and given[0] not in ("-h", "--help"))):
        given.insert(0, program.default)
    options = parser.parse_args(given)
    return program.all_commands[options.command], options


def _run(command: Command, options: argparse.Namespace) -> int:
    if command.config and options.show_config:
        print(command.config.text(options))
        return 0
    return command.run(options)


def _explain(error: BaseException) -> int:
    """Tell the error in a line; return its exit code."""
    code = next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind))
    trace = error if os.environ.get(TRACEBACK) else None
    if isinstance(error, KeyboardInterrupt):
        _logger.info("stopped; run again to go on", exc_info=trace)
    else:
        end = f"; {GO_ON}" if isinstance(error, OSError) and code == 1 else ""
        _logger.error(_message(error) + end, exc_info=trace)
    return code


def _message(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def _reader_is_gone() -> bool:
    """Whether nobody reads standard output any more; what is left to write is then thrown away."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


class _Parser(argparse.ArgumentParser):
    """Raises what argparse prints with its usage, in a line that points at the help."""

    help_of = ""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.help_of or self.prog} --help")


def _program_parser(program: Program, *, showing: bool, pointing: bool) -> argparse.ArgumentParser:
    """The parser.

    Args:
        showing: only the configuration is to be shown, so no other argument is necessary.
        pointing: errors point at the help of the command that was called, else at the program's.
    """
    look = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
    examples = [example for command in program.all_commands.values() for example in command.examples]
    parser = _Parser(prog=program.name, description=program.description, epilog=_examples(examples), **look)
    if isinstance(program.commands, Command):
        _add_arguments(parser, program.commands, showing)
        parser.set_defaults(command="")
        return parser
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in program.commands.items():
        help = f"{command.help} (the default)" if name == program.default else command.help
        child = subparsers.add_parser(
            name, help=help, description=command.help, epilog=_examples(command.examples), **look
        )
        child.help_of = "" if pointing else program.name
        _add_arguments(child, command, showing)
    return parser


def _add_arguments(parser: argparse.ArgumentParser, command: Command, showing: bool) -> None:
    groups: dict[str, Any] = {"": parser}
    log = argument("--log", help="form of the log on standard error", choices=("plain", "json"), default="plain")
    for declared in (*(command.config.arguments() if command.config else ()), *command.arguments, log):
        if declared.group not in groups:
            groups[declared.group] = parser.add_argument_group(declared.group)
        needless = showing and "--config" not in declared.flags
        settings = _needless(declared) if needless else declared.settings
        groups[declared.group].add_argument(*declared.flags, **settings)


def _needless(declared: Argument) -> dict[str, Any]:
    """Settings of an argument that may be left out."""
    settings = {name: value for name, value in declared.settings.items() if name != "required"}
    if not declared.flags[0].startswith("-"):
        settings["nargs"] = "*" if settings.get("nargs") in ("+", "*") else "?"
    return settings


def _examples(lines: Sequence[str]) -> str:
    return "\n".join(["examples:", *(f"  {line}" for line in lines)])
