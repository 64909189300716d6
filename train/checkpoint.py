"""Checkpoints: written in the background by torch.distributed.checkpoint, and named only once they are whole.

A checkpoint is a folder ``step-00001000`` with the shards of all ranks and ``state.json``: step, recipe, position in
the data, and the sizes of the files. It is written under a name that begins with a dot and takes its own when the
last rank has finished, so a killed writer leaves nothing that could be resumed. A checkpoint that cannot be written,
because of a full disk for instance, is reported and removed; training goes on to the next. DCP's index is a pickle:
resume only what you trust, and pass on exports (:mod:`train.export`) instead.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException

from kit.config import ConfigError
from train.config import CheckpointConfig

STATE, LOCK = "state.json", ".lock"
PREFIX, PARTIAL = "step-", ".writing-"
NONE, TAKEN = -1, -2  # in place of a step: no checkpoint, and a folder that another run writes to
_logger = logging.getLogger(__name__)


@dataclass
class _PendingSave:
    future: Future
    partial: Path
    final: Path
    state: dict[str, Any]


class Checkpoints:
    """The checkpoints of a run.

    Args:
        folder: shared by all ranks.
        rank: rank 0 names, counts and removes.

    Raises:
        ConfigError: another run writes there.
    """

    def __init__(self, folder: str | Path, config: CheckpointConfig, *, rank: int) -> None:
        self.folder, self._config, self._rank = Path(folder), config, rank
        self._pending: _PendingSave | None = None
        self._saved: int | None = None
        # the writing threads talk among themselves, past the collectives of training
        self._group = dist.new_group(backend="gloo")
        self._lock: int | None = None
        if self._on_all(self._take_folder) == TAKEN:
            raise ConfigError(f"another run writes to {self.folder}: wait for it, or give another out=")

    def close(self) -> None:
        """Let other runs write to the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def latest(self) -> Path | None:
        """The newest whole checkpoint once nothing is under way, the same on all ranks."""
        self._finish()
        step = self._on_all(lambda: step_of(whole[-1]) if (whole := whole_checkpoints(self.folder)) else NONE)
        return None if step == NONE else self.folder / checkpoint_name(step)

    def _on_all(self, find: Callable[[], int]) -> int:
        """What rank 0 finds."""
        found = torch.tensor([find() if self._rank == 0 else NONE])
        dist.broadcast(found, 0, group=self._group)
        return int(found)

    def _take_folder(self) -> int:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT)
        try:  # POSIX's locks: dataloader workers, which outlive a killed trainer by seconds, do not inherit them
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            self.close()
            return TAKEN
        for half in self.folder.glob(f"{PARTIAL}*"):
            shutil.rmtree(half)
        return NONE

    def save(self, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
        """Copy the tensors and write them in the background; waits for a save that is still under way.

        Args:
            step: optimizer steps that the tensors have had.
            tensors: of this rank, by kind and name; a ``DTensor`` is its shard.
            state: plain data.
        """
        self._finish()
        partial, final = self.folder / f"{PARTIAL}{checkpoint_name(step)}", self.folder / checkpoint_name(step)
        if step == self._saved:
            return
        self._saved = step
        future = dcp.async_save(dict(tensors), checkpoint_id=partial, process_group=self._group)
        self._pending = _PendingSave(future, partial, final, {"step": step, **state})

    def poll(self) -> None:
        """Name the checkpoint under way if it is finished; say so if it could not be written."""
        if self._pending and self._pending.future.done():
            self._finish()

    def wait(self) -> None:
        """Until nothing is under way.

        Raises:
            OSError: it could not be written.
        """
        if error := self._finish():
            raise OSError(error)

    def _finish(self) -> str | None:
        """Until nothing is under way; what went wrong, on the ranks that know."""
        if self._pending is None:
            return None
        pending, self._pending = self._pending, None
        try:
            pending.future.result()
            if self._rank == 0:  # whose save returns after it has heard of every rank's and has written the index
                self._name(pending)
        except (CheckpointException, OSError, RuntimeError) as error:
            self._saved = None
            reason = _reason(error)
            message = f"checkpoint {pending.final} could not be written: {reason}"
            if self._rank == 0:
                shutil.rmtree(pending.partial, ignore_errors=True)
                _logger.warning(message)
            return message
        return None

    def _name(self, pending: _PendingSave) -> None:
        sizes = {file.name: file.stat().st_size for file in sorted(pending.partial.iterdir())}
        with (pending.partial / STATE).open("w", encoding="utf-8") as file:
            json.dump({**pending.state, "files": sizes}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        if pending.final.exists():  # cut, or the run would have resumed from it
            _remove(pending.final)
        pending.partial.rename(pending.final)
        _sync_folder(self.folder)
        self._remove_old()

    def load(self, path: Path, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Fill the tensors, sharded in whatever way, in place.

        Raises:
            ValueError: the checkpoint lacks one of them or has it in another shape.
        """
        try:
            dcp.load(dict(tensors), checkpoint_id=path, process_group=self._group)
        except CheckpointException as error:
            raise ValueError(f"checkpoint {path} cannot be resumed: {_reason(error)}") from error
        self._saved = step_of(path)

    def _remove_old(self) -> None:
        whole = whole_checkpoints(self.folder)
        scores = {path: read_state(path).get("validation") for path in whole}
        ranked = sorted((path for path in whole if scores[path] is not None), key=lambda path: scores[path])
        keep = {*whole[-self._config.keep_last :], *ranked[: self._config.keep_best]}
        for path in set(whole) - keep:
            _remove(path)


def whole_checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoints, oldest first; those with missing or cut files are left out with a warning."""
    return [path for path in sorted(folder.glob(f"{PREFIX}*")) if _whole(path)]


def read_state(path: Path) -> dict[str, Any]:
    return json.loads((path / STATE).read_text("utf-8"))


def step_of(path: Path) -> int:
    return int(path.name.removeprefix(PREFIX))


def _whole(path: Path) -> bool:
    try:
        sizes = read_state(path)["files"]
        broken = [name for name, size in sizes.items() if (path / name).stat().st_size != size]
    except (OSError, ValueError, KeyError) as error:
        broken = [str(error)]
    if broken:
        warnings.warn(f"checkpoint {path} is not whole and is left out: {', '.join(broken)}", stacklevel=3)
    return not broken


def checkpoint_name(step: int) -> str:
    return f"{PREFIX}{step:08d}"


def _remove(path: Path) -> None:
    doomed = path.with_name(f"{PARTIAL}old-{path.name}")  # half-removed must not look whole
    path.rename(doomed)
    shutil.rmtree(doomed)


def _reason(error: BaseException) -> str:
    """In a line; of what DCP gathered from the ranks, the first."""
    if isinstance(error, CheckpointException):
        rank, (failure, _) = next(iter(error.failures.items()))
        return f"rank {rank}: {failure}"
    return str(error)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
