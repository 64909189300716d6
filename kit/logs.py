"""Logging of commands: the house logs through :mod:`logging`, and a command writes the records to standard error.

Library code calls ``logging.getLogger(__name__)`` and attaches nothing, so that another program can silence or
redirect it. Results go to standard output and are no records.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Literal

Form = Literal["plain", "json"]
# Folders of the house, whose notices (level INFO) are shown; of other packages only warnings are.
HOUSE = (
    *("unitalking_data", "kit", "media", "model", "perception", "engine"),
    *("curation", "train", "pipelines", "benchmarks"),
)
CLEAR_LINE = "\r\x1b[K"


@contextmanager
def attached(form: Form = "plain") -> Iterator[None]:
    """Write log records to standard error: plain lines, or one JSON object a line.

    Within another command that has done so, its form stays.
    """
    root = logging.getLogger()
    if _attached_handler() is not None:
        yield
        return
    handler = _StderrHandler(form)
    root.addHandler(handler)
    for name in HOUSE:
        logging.getLogger(name).setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        for name in HOUSE:
            logging.getLogger(name).setLevel(logging.NOTSET)


def on_terminal() -> bool:
    """Return whether a command writes plain lines to a terminal, where a line can be renewed in place."""
    handler = _attached_handler()
    return handler is not None and handler.form == "plain" and sys.stderr.isatty()


def quiet(*names: str) -> None:
    """Let only warnings of these loggers through."""
    for name in names:
        logging.getLogger(name).setLevel(logging.WARNING)


def _attached_handler() -> _StderrHandler | None:
    return next((handler for handler in logging.getLogger().handlers if isinstance(handler, _StderrHandler)), None)


class _StderrHandler(logging.Handler):
    """Writes to what ``sys.stderr`` is at that moment, which tests and notebooks replace."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.form = form
        self.setFormatter(_JsonLines() if form == "json" else _PlainLines())

    def emit(self, record: logging.LogRecord) -> None:
        try:
            # A progress line may stand there without its end.
            start = CLEAR_LINE if self.form == "plain" and sys.stderr.isatty() else ""
            sys.stderr.write(f"{start}{self.format(record)}\n")
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


class _PlainLines(logging.Formatter):
    """The message; a warning or an error says that it is one."""

    def format(self, record: logging.LogRecord) -> str:
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        return level + super().format(record)


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        content = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            content["traceback"] = self.formatException(record.exc_info)
        return json.dumps(content, ensure_ascii=False)
