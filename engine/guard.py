"""A subprocess that opens media and runs a group's stages, watched by its parent.

A decoder that crashes, hangs or eats the memory costs one step of one item: the parent kills the process, starts
another, and goes on. Items that were in the same batch are repeated one by one, so the blame falls on the right
one, and stages that had answered keep their answers.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import psutil

from engine.scoring import OPENING, Scorer
from engine.specs import GroupSpec, Row, WorkItem, load_object
from kit.errors import UserError
from kit.weights import WeightsError, resolve

SETUP_LIMIT_S = 300.0
_POLL_S = 0.25
_ROOT = Path(__file__).resolve().parents[1]


class SetupError(UserError):
    """A group's process could not start: a missing model, a wrong setting. No clip is to blame."""


class _Crash(Exception):
    def __init__(self, kind: str, message: str, step: str) -> None:
        super().__init__(message)
        self.kind, self.step = kind, step


class Guard:
    """Runs batches of one group in a guarded process, which is started at the first batch and after every crash.

    Raises:
        SetupError: from :meth:`score`, when the stages cannot be set up.
    """

    def __init__(self, group: GroupSpec) -> None:
        self._group = group
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    def score(self, batch: Sequence[WorkItem]) -> dict[str, list[Row]]:
        """Rows by stage for everything that ``batch`` has to do in this group."""
        names = [stage.name for stage in self._group.stages]
        rows: dict[str, list[Row]] = {name: [] for name in names}
        queue = [[replace(work, todo=tuple(name for name in names if name in work.todo)) for work in batch]]
        while queue:
            current = [work for work in queue.pop(0) if work.todo]
            if not current:
                continue
            answers: dict[str, list[Row]] = {name: [] for name in names}
            crash = None
            try:
                self._run(current, answers)
            except _Crash as error:
                crash = error
            rest = [_after(work, answers) for work in current]
            if crash is not None and len(current) == 1:
                blamed = rest[0].todo if crash.step == OPENING else (crash.step,)
                for name in blamed:
                    attempts = rest[0].attempts.get(name, 0) + 1
                    row = Row(rest[0].item.key, "failed", attempts, error_kind=crash.kind, error=str(crash))
                    answers[name].append(row)
                rest = [_after(rest[0], {name: answers[name] for name in blamed})]
            for name in names:
                rows[name] += answers[name]
            if crash is not None:
                queue = [[work] for work in rest] + queue
        return rows

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._connection is not None:
            self._connection.close()
        self._process = self._connection = None

    def _run(self, batch: list[WorkItem], answers: dict[str, list[Row]]) -> None:
        if self._process is None:
            self._start()
        step, limit = OPENING, self._group.config.time_limit_s
        try:
            self._connection.send(batch)
            while True:
                kind, *content = self._receive(step, limit)
                if kind == "begin":
                    step, items = content
                    limit = self._group.config.time_limit_s * items
                elif kind == "rows":
                    answers[content[0]] += content[1]
                else:
                    return
        except _Crash:
            self.close()
            raise

    def _receive(self, step: str, limit: float) -> tuple[Any, ...]:
        """The next message; kills nothing itself, but says why the process must be given up."""
        deadline = time.monotonic() + limit
        while True:
            try:
                if self._connection.poll(_POLL_S):
                    return self._connection.recv()
            except (EOFError, ConnectionError, OSError):
                raise _Crash("crash", f"the process crashed in {step}: {self._exit_reason()}", step) from None
            if time.monotonic() > deadline:
                raise _Crash("timeout", f"no end of {step} after {limit:g} s", step)
            memory = _resident(self._process.pid)
            if memory > self._group.config.memory_limit_gb * 2**30:
                used = f"{memory / 2**30:.1f} GiB"
                raise _Crash("memory", f"{step} took {used}, over {self._group.config.memory_limit_gb:g} GiB", step)

    def _exit_reason(self) -> str:
        code = self._process.wait(timeout=10)
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        threads = str(max(1, int(self._group.config.pool.cpus)))
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "OMP_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": threads,
        }
        command = [sys.executable, "-m", "engine.guard", str(theirs.fileno()), str(os.getpid())]
        self._process = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], env=environment, stdin=subprocess.DEVNULL, stdout=2
        )
        theirs.close()
        self._connection = Connection(ours.detach())
        try:
            self._connection.send(self._group)
            answer = self._receive("setup", SETUP_LIMIT_S)
        except _Crash as crash:
            self.close()
            raise SetupError(f"group {self._group.name}: {crash}") from None
        if answer[0] != "ready":
            self.close()
            raise SetupError(f"group {self._group.name}: {answer[1]}")


def _after(work: WorkItem, answers: dict[str, list[Row]]) -> WorkItem:
    """``work`` without the stages that have answered, their answers known to its gates."""
    mine = {name: row for name, rows in answers.items() for row in rows if row.key == work.item.key}
    known = {**work.known, **{name: {"status": row.status, "values": row.values} for name, row in mine.items()}}
    return replace(work, todo=tuple(name for name in work.todo if name not in mine), known=known)


def _resident(pid: int) -> int:
    try:
        return psutil.Process(pid).memory_info().rss
    except psutil.Error:
        return 0  # it has just crashed, which the connection will tell


def _serve(connection: Connection) -> None:
    """The child's side: set up, then score one batch a message until the parent goes away."""
    group: GroupSpec = connection.recv()
    cv2.setNumThreads(max(1, int(group.config.pool.cpus)))  # not told by OMP_NUM_THREADS; actors share the cores
    try:
        stages = [spec.build() for spec in group.stages]
        for spec, stage in zip(group.stages, stages, strict=True):
            stage.setup(resolve(stage.weights(), spec.weights))
        opener = load_object(group.opener) if group.opener else None
    except WeightsError as error:
        connection.send(("failed", str(error)))
        return
    except Exception as error:
        connection.send(("failed", f"setting up: {type(error).__name__}: {error}"))
        return
    scorer = Scorer(group, stages, opener)
    connection.send(("ready",))
    while True:
        batch = connection.recv()

        def begin(step: str, items: int) -> None:
            # The kernel ends this process, even in native code, should its parent be gone and unable to.
            signal.alarm(int(2 * items * group.config.time_limit_s) + 1)
            connection.send(("begin", step, items))

        scorer.run(batch, begin, lambda stage, rows: connection.send(("rows", stage, rows)))
        signal.alarm(0)
        connection.send(("done",))


def _follow_parent(parent: int) -> None:
    """Die with the parent, also when it is killed while this process waits or computes."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    _follow_parent(int(sys.argv[2]))
    with contextlib.suppress(EOFError, ConnectionError):
        _serve(Connection(int(sys.argv[1])))


if __name__ == "__main__":
    main()
