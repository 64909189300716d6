"""How far a long run is: one line that renews itself on a terminal, log records elsewhere."""

from __future__ import annotations

import logging
import sys
import time

from kit.logs import CLEAR_LINE, on_terminal

_TERMINAL_PERIOD_S = 0.2
_LOG_PERIOD_S = 10.0
_logger = logging.getLogger(__name__)


class Progress:
    """Counts items towards ``total`` and tells count, rate and the time that is left.

    The first item is told at once, so that a slow run shows that it moves; then at most one line in 0.2 s goes to a
    terminal, one in 10 s to a log.

    Args:
        label: what is counted.
        total: how many there are; None if that is not known.
        bytes: what is counted are bytes, told as sizes.
        done: how many were counted before, which does not enter the rate.
    """

    def __init__(self, label: str, total: int | None, *, bytes: bool = False, done: int = 0) -> None:
        self._label, self._total, self._bytes = label, total, bytes
        self._started = time.monotonic()
        self._told_at = self._started
        self._done = self._count = done
        self._told = 0

    def add(self, count: int) -> None:
        self._count += count
        now = time.monotonic()
        if not self._told or now - self._told_at >= (_TERMINAL_PERIOD_S if on_terminal() else _LOG_PERIOD_S):
            self._tell(now)

    def finish(self) -> None:
        """Tell the last count, and leave the line."""
        if self._told != self._count:
            self._tell(time.monotonic())
        if self._told and on_terminal():
            sys.stderr.write("\n")

    def _tell(self, now: float) -> None:
        self._told_at, self._told = now, self._count
        line = self._line(now - self._started)
        if on_terminal():
            sys.stderr.write(f"{CLEAR_LINE}{line}")
            sys.stderr.flush()
        else:
            _logger.info(line)

    def _line(self, elapsed: float) -> str:
        counted = self._count - self._done
        each = elapsed / counted if counted > 0 else 0.0
        if self._bytes:
            rate = f", {size_text(1 / each)}/s" if each else ""
        else:
            rate = f", {1 / each:.2f}/s" if 0 < each <= 1 else f", {each:.2f} s each" if each else ""
        remaining = self._total - self._count if self._total is not None else 0
        left = f", {_clock(remaining * each)} left" if each and remaining > 0 else ""
        total = f"/{self._amount(self._total)}" if self._total is not None else ""
        return f"{self._label}: {self._amount(self._count)}{total}{rate}, {_clock(elapsed)} elapsed{left}"

    def _amount(self, count: int) -> str:
        return size_text(count) if self._bytes else str(count)


def size_text(count: float) -> str:
    """Bytes in the largest fitting unit of 1000: ``1.22 GB``."""
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB" if count < 999.5 else f"{count:.0f} GB"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
