"""Reports a rank that makes no progress, and which ranks hold the others up, then ends the process.

A collective waits for the slowest rank without saying which that is. Every rank publishes what it does in the store
that the ranks met through; one that is stuck reads what all the others do. The store itself lives in a process, which
may be the one that is dead or frozen: whatever asks it does so in a thread of its own, that nobody waits for.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch.distributed as dist

STUCK = 70  # exit code
REPORT_S = 10.0  # how long the store may take to tell what the others do


class Watchdog:
    """A thread beside the training loop.

    Args:
        activity: gives (step, phase, seconds since the phase began) of this rank.
        stall_s: seconds after which a phase is stuck.
        store: of all ranks; None where there is only one.
    """

    def __init__(
        self,
        activity: Callable[[], tuple[int, str, float]],
        *,
        rank: int,
        size: int,
        stall_s: float,
        store: dist.Store | None = None,
    ) -> None:
        self._activity, self._rank, self._size = activity, rank, size
        self._stall_s, self._interval = stall_s, min(stall_s / 4, 15.0)
        self._store = dist.PrefixStore("watch", store) if store and size > 1 else None
        self._done = threading.Event()
        self._watcher = _thread(self._watch)
        self._publisher = _thread(self._publish)

    def __enter__(self) -> Watchdog:
        self._watcher.start()
        if self._store:
            self._publisher.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._done.set()
        self._watcher.join()
        if self._store:
            self._publisher.join(REPORT_S)  # a thread within the store's code when Python ends would abort the process

    def _watch(self) -> None:
        while not self._done.wait(self._interval):
            step, phase, seconds = self._activity()
            if seconds > self._stall_s:
                # Not by logging, whose lock the stuck thread may hold.
                print(f"rank {self._rank}: stuck for {seconds:.0f} s in step {step}, {phase}", file=sys.stderr)
                if self._store:
                    print(self._report(), file=sys.stderr)
                faulthandler.dump_traceback()
                sys.stderr.flush()
                os._exit(STUCK)

    def _publish(self) -> None:
        while not self._done.wait(self._interval):
            step, phase, seconds = self._activity()
            beat = {"step": step, "phase": phase, "seconds": round(seconds, 1), "at": time.time()}
            with suppress(RuntimeError):  # a store that is gone is reported when this rank is stuck
                self._store.set(str(self._rank), json.dumps(beat))

    def _report(self) -> str:
        silent = "the store that the ranks met through does not answer: its host, rank 0 or torchrun, is dead or frozen"
        report = [silent]
        reader = _thread(lambda: report.append(self._read()))
        reader.start()
        reader.join(REPORT_S)
        return report[-1]

    def _read(self) -> str:
        beats: dict[int, dict[str, Any]] = {}
        try:
            for rank in range(self._size):
                if self._store.check([str(rank)]):
                    beats[rank] = json.loads(self._store.get(str(rank)))
        except RuntimeError as error:
            return f"the store that the ranks met through cannot be read: {error}"
        return blame(beats, self._size, now=time.time(), silent_after_s=4 * self._interval)


def _thread(work: Callable[[], Any]) -> threading.Thread:
    return threading.Thread(target=work, name="watchdog", daemon=True)


def blame(beats: dict[int, dict[str, Any]], size: int, *, now: float, silent_after_s: float) -> str:
    """Who holds the others up: ranks that went silent, and ranks at the earliest step and phase.

    Args:
        beats: the last sign of each rank that gave any.
    """
    silent = [rank for rank in range(size) if rank not in beats or now - beats[rank]["at"] > silent_after_s]
    lines = [f"ranks that are silent (dead or frozen): {', '.join(map(str, silent))}"] if silent else []
    for rank in silent:
        if rank in beats:
            beat = beats[rank]
            lines.append(f"  rank {rank} was in step {beat['step']}, {beat['phase']}, {now - beat['at']:.0f} s ago")
    alive = {rank: beat for rank, beat in beats.items() if rank not in silent}
    for place in sorted({(beat["step"], beat["phase"]) for beat in alive.values()}):
        there = [rank for rank, beat in alive.items() if (beat["step"], beat["phase"]) == place]
        longest = max(alive[rank]["seconds"] for rank in there)
        lines.append(f"in step {place[0]}, {place[1]}, for up to {longest:.0f} s: ranks {', '.join(map(str, there))}")
    return "\n".join(lines)
