"""Checkpoints: written in the background by torch.distributed.checkpoint, and named only once they are whole.

A checkpoint is a folder ``step-00001000`` with the shards of all ranks and ``state.json``: step, recipe, position in
the data, and the sizes of the files. It is written under a name that begins with a dot and takes its own when the
last rank has finished, so a killed writer leaves nothing that could be resumed. DCP's index is a pickle: resume only
what you trust, and pass on exports (:mod:`train.export`) instead.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor

from train.config import CheckpointConfig

STATE = "state.json"
PREFIX, PARTIAL = "step-", ".writing-"


@dataclass
class _Pending:
    future: Future
    partial: Path
    final: Path
    state: dict[str, Any]


class Checkpoints:
    """The checkpoints of a run.

    Args:
        folder: shared by all ranks.
        rank: rank 0 names, counts and removes.
    """

    def __init__(self, folder: str | Path, config: CheckpointConfig, *, rank: int) -> None:
        self.folder, self._config, self._rank = Path(folder), config, rank
        self._pending: _Pending | None = None
        self._saved: int | None = None
        # the writing threads talk among themselves, past the collectives of training
        self._group = dist.new_group(backend="gloo")
        if rank == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            for half in self.folder.glob(f"{PARTIAL}*"):
                shutil.rmtree(half)

    def latest(self) -> Path | None:
        """The newest whole checkpoint, the same on all ranks."""
        step = torch.tensor([-1])
        if self._rank == 0:
            whole = whole_checkpoints(self.folder)
            step[0] = step_of(whole[-1]) if whole else -1
        dist.broadcast(step, 0)
        return None if step < 0 else self.folder / checkpoint_name(int(step))

    def save(self, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
        """Copy the tensors and write them in the background; waits for a save that is still under way.

        Args:
            step: optimizer steps that the tensors have had.
            tensors: of this rank, by kind and name; a ``DTensor`` is its shard.
            state: plain data.
        """
        self.wait()
        partial, final = self.folder / f"{PARTIAL}{checkpoint_name(step)}", self.folder / checkpoint_name(step)
        if step == self._saved:
            return
        self._saved = step
        future = dcp.async_save(dict(tensors), checkpoint_id=partial, process_group=self._group)
        self._pending = _Pending(future, partial, final, {"step": step, **state})

    def poll(self) -> None:
        """Name the checkpoint under way if it is finished.

        Raises:
            RuntimeError, OSError: what writing it raised.
        """
        if self._pending and self._pending.future.done():
            self.wait()

    def wait(self) -> None:
        """Until nothing is under way; raises as :meth:`poll`."""
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        pending.future.result()
        # the coordinator's save returns after it has heard of every rank's and has written the index
        if self._rank == 0:
            sizes = {file.name: file.stat().st_size for file in sorted(pending.partial.iterdir())}
            with (pending.partial / STATE).open("w", encoding="utf-8") as file:
                json.dump({**pending.state, "files": sizes}, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            pending.partial.rename(pending.final)
            _sync_folder(self.folder)
            self._remove_old()

    def load(self, path: Path, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Fill the tensors, sharded in whatever way, in place.

        Raises:
            RuntimeError: the checkpoint lacks one of them or has it in another shape.
        """
        dcp.load(dict(tensors), checkpoint_id=path, process_group=self._group)
        self._saved = step_of(path)

    def _remove_old(self) -> None:
        whole = whole_checkpoints(self.folder)
        scores = {path: read_state(path).get("validation") for path in whole}
        ranked = sorted((path for path in whole if scores[path] is not None), key=lambda path: scores[path])
        keep = {*whole[-self._config.keep_last :], *ranked[: self._config.keep_best]}
        for path in set(whole) - keep:
            doomed = path.with_name(f"{PARTIAL}{path.name}")  # half-removed must not look whole
            path.rename(doomed)
            shutil.rmtree(doomed)


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


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
