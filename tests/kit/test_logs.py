"""The house's records reach standard error while a command runs, and nothing of it is left afterwards."""

from __future__ import annotations

import io
import json
import logging
import sys

from kit import logs
from tests.test_floors import FLOORS


def test_notices_of_the_house_are_shown_and_those_of_others_are_not(capsys):
    with logs.attached():
        logging.getLogger("train.loop").info("resumed at step %d", 4)
        logging.getLogger("train.loop").debug("too much")
        logging.getLogger("somebody.else").info("chatter")
        logging.getLogger("somebody.else").warning("look out")
        logging.getLogger("model.sample").error("it broke")
    assert capsys.readouterr().err.splitlines() == [
        "resumed at step 4",
        "warning: look out",
        "error: it broke",
    ]


def test_nothing_is_left_when_the_command_ends(capsys):
    before = logging.getLogger().handlers[:]
    with logs.attached():
        pass
    logging.getLogger("train.loop").info("unheard")
    assert logging.getLogger().handlers == before and logging.getLogger("train").level == logging.NOTSET
    assert not capsys.readouterr().err


def test_a_command_within_a_command_keeps_its_form(capsys):
    with logs.attached("json"), logs.attached("plain"):
        logging.getLogger("kit").info("once")
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["message"] == "once"


def test_json_lines_hold_what_went_wrong(capsys):
    with logs.attached("json"):
        try:
            raise ValueError("odd\nlines")
        except ValueError:
            logging.getLogger("kit").exception("told")
    record = json.loads(capsys.readouterr().err)
    assert record["level"] == "error" and record["traceback"].endswith("ValueError: odd\nlines")
    assert record["time"].endswith("+00:00")


def test_a_record_does_not_run_into_a_progress_line(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    with logs.attached():
        assert logs.on_terminal()
        logging.getLogger("kit").info("done")
    assert terminal.getvalue() == "\r\x1b[Kdone\n" and not logs.on_terminal()


def test_other_loggers_can_be_quieted(monkeypatch):
    monkeypatch.setattr(logging.getLogger("somebody.loud"), "level", logging.DEBUG)
    logs.quiet("somebody.loud")
    assert logging.getLogger("somebody.loud").level == logging.WARNING


def test_every_folder_of_the_house_is_heard():
    assert set(logs.HOUSE) == set(FLOORS)
