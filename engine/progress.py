"""How far a long run is: one line that renews itself on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_TERMINAL_PERIOD_S = 0.2
_LOG_PERIOD_S = 10.0


class Progress:
    """Counts items towards ``total`` and prints count, rate and the time that is left.

    Args:
        label: what is counted.
        total: how many there are.
        stream: where to print; standard error if not given, so results on standard output stay clean.
    """

    def __init__(self, label: str, total: int, stream: TextIO | None = None) -> None:
        self._label, self._total = label, total
        self._stream = stream if stream is not None else sys.stderr
        self._live = self._stream.isatty()
        self._started = self._printed = time.monotonic()
        self._count = 0

    def add(self, count: int) -> None:
        self._count += count
        now = time.monotonic()
        period = _TERMINAL_PERIOD_S if self._live else _LOG_PERIOD_S
        if now - self._printed >= period:
            self._print(now)

    def finish(self) -> None:
        self._print(time.monotonic())
        if self._live:
            self._stream.write("\n")

    def _print(self, now: float) -> None:
        self._printed = now
        elapsed = now - self._started
        rate = self._count / elapsed if elapsed > 0 else 0.0
        left = f", {_clock((self._total - self._count) / rate)} left" if rate > 0 and self._count < self._total else ""
        line = f"{self._label}: {self._count}/{self._total}, {rate:.2f}/s, {_clock(elapsed)} elapsed{left}"
        self._stream.write(f"\r\x1b[K{line}" if self._live else f"{line}\n")
        self._stream.flush()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
