"""Progress: a line at first, one in a while, and the last; renewed in place on a terminal."""

from __future__ import annotations

import io
import sys

import pytest

from kit import logs, progress
from kit.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when told."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def wait(seconds: float) -> None:
        now[0] += seconds

    return wait


def test_a_log_has_the_first_line_one_in_ten_seconds_and_the_last(clock, capsys):
    with logs.attached():
        told = Progress("clips", 10)
        for _ in range(10):
            clock(4)
            told.add(1)
        told.finish()
    assert capsys.readouterr().err.splitlines() == [
        "clips: 1/10, 4.00 s each, 0:00:04 elapsed, 0:00:36 left",
        "clips: 4/10, 4.00 s each, 0:00:16 elapsed, 0:00:24 left",
        "clips: 7/10, 4.00 s each, 0:00:28 elapsed, 0:00:12 left",
        "clips: 10/10, 4.00 s each, 0:00:40 elapsed",
    ]


def test_the_last_line_is_told_once_and_an_empty_run_tells_nothing(clock, capsys):
    with logs.attached():
        told = Progress("clips", 8)
        clock(2)
        told.add(8)
        told.finish()
        Progress("clips", 0).finish()
    assert capsys.readouterr().err == "clips: 8/8, 4.00/s, 0:00:02 elapsed\n"


def test_a_terminal_has_one_line(clock, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    with logs.attached():
        told = Progress("steps", 2)
        for _ in range(2):
            clock(1)
            told.add(1)
        told.finish()
    first, second = "steps: 1/2, 1.00/s, 0:00:01 elapsed, 0:00:01 left", "steps: 2/2, 1.00/s, 0:00:02 elapsed"
    assert terminal.getvalue() == f"\r\x1b[K{first}\r\x1b[K{second}\n"


def test_a_library_says_nothing_by_itself(clock, capsys):
    told = Progress("clips", 1)
    told.add(1)
    told.finish()
    assert not capsys.readouterr().err
