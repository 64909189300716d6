"""The two errors of the house that end a command with one line; :mod:`kit.cli` maps them to exit codes."""

from __future__ import annotations


class UserError(Exception):
    """The user has to change something before the command can work; the message says what. Exit code 2."""


class Fault(Exception):
    """The work cannot go on through no mistake of the user's; the message says why. Exit code 1."""
