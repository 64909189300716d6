"""Call a function on untrusted items in subprocesses: a crash or a hang is that item's error alone."""

from __future__ import annotations

import multiprocessing
import os
import queue
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def isolated(
    function: Callable[[Item], Result], items: Sequence[Item], *, time_limit_s: float = 60.0, workers: int | None = None
) -> list[Result | Exception]:
    """``function`` of each item in order; where it raised, crashed or took too long, an exception instead.

    Args:
        function: importable (it is pickled by name), like its items.
        workers: subprocesses at once, as many as there are cores if not given.
    """
    count = max(1, min(workers or os.cpu_count() or 1, len(items)))
    slots: queue.SimpleQueue[_Slot] = queue.SimpleQueue()
    for _ in range(count):
        slots.put(_Slot())

    def call(item: Item) -> Result | Exception:
        slot = slots.get()
        try:
            return slot.call(function, item, time_limit_s)
        finally:
            slots.put(slot)

    try:
        with ThreadPoolExecutor(count) as threads:
            return list(threads.map(call, items))
    finally:
        for _ in range(count):
            slots.get().close()


class _Slot:
    """One subprocess, replaced when it crashes."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    def call(self, function: Callable[[Item], Result], item: Item, time_limit_s: float) -> Result | Exception:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        try:
            return self._pool.submit(function, item).result(time_limit_s)
        except TimeoutError:
            self.close()
            return TimeoutError(f"no result after {time_limit_s:g} s")
        except BrokenProcessPool:
            self.close()
            return RuntimeError("the process crashed")
        except Exception as error:  # what the function raised is the item's answer
            return error

    def close(self) -> None:
        if self._pool is None:
            return
        for process in list((self._pool._processes or {}).values()):
            process.kill()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool = None
