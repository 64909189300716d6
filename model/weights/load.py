"""Strict loading: weights stay memory-mapped until they are used, and no key is missing or left over without a reason.

A file of another layout is read through a rename (its key → ours). What a module has and the file lacks must be
expected and have a reason, and so must what the file has and the module lacks; anything else stops the load.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

TORCH_SUFFIXES = (".pth", ".pt", ".bin")


class TensorsError(ValueError):
    """Weights that cannot be used as asked; the message names the file, the keys and what to do."""


class Weights(Mapping[str, Tensor]):
    """Tensors of one safetensors file, or of a folder of them, mapped into memory and read when they are touched.

    A folder holds one ``*.safetensors.index.json`` with its shards, or else one ``*.safetensors``.

    Attributes:
        path: what was opened.

    Raises:
        TensorsError: nothing there, an index that names files outside its folder or keys that its shards lack.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._files = [self.path] if self.path.is_file() else _shards(self.path)
        self._handles = {}
        for file in self._files:
            try:
                handle = safe_open(file, framework="pt")
            except (SafetensorError, OSError) as error:
                raise TensorsError(f"{file} is not a readable safetensors file: {error}") from None
            for key in handle.keys():  # noqa: SIM118 — the handle is no mapping
                if key in self._handles:
                    raise TensorsError(f"{self.path}: {key} is in more than one file")
                self._handles[key] = handle

    def __getitem__(self, key: str) -> Tensor:
        return self._handles[key].get_tensor(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._handles)

    def __len__(self) -> int:
        return len(self._handles)

    def __contains__(self, key: object) -> bool:
        return key in self._handles

    def metadata(self) -> dict[str, str]:
        """What the first file's header says besides its tensors."""
        with safe_open(self._files[0], framework="pt") as handle:
            return handle.metadata() or {}


def open_weights(path: str | Path) -> Mapping[str, Tensor]:
    """:class:`Weights` of a safetensors file or folder, or the content of a torch file (``.pth``, ``.pt``, ``.bin``).

    A torch file is read by ``torch.load(weights_only=True)``, memory-mapped; it may nest its tensors in dictionaries.

    Raises:
        TensorsError: nothing there, not readable, or a torch file that holds more than tensors.
    """
    path = Path(path)
    if path.suffix not in TORCH_SUFFIXES:
        return Weights(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, UnpicklingError) as error:
        raise TensorsError(f"{path} cannot be read as plain tensors: {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict):
        raise TensorsError(f"{path} holds a {type(content).__name__}, not named tensors")
    return content


@dataclass(frozen=True)
class LoadReport:
    """What a load did.

    Attributes:
        loaded: how many of the module's tensors came from the file.
        missing: tensors of the module that the file has not, each with the reason why that is right.
        extra: tensors of the file that the module has not, each with the reason why that is right.
    """

    loaded: int
    missing: dict[str, str] = field(default_factory=dict)
    extra: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{self.loaded} tensors loaded"]
        lines += [f"  not in the file: {key} ({reason})" for key, reason in self.missing.items()]
        lines += [f"  not used: {key} ({reason})" for key, reason in self.extra.items()]
        return "\n".join(lines)


def load_strict(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    rename: Callable[[str], str | None] = lambda key: key,
    may_miss: Mapping[str, str] | None = None,
    may_drop: Mapping[str, str] | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> LoadReport:
    """Put ``weights`` into ``module``, all of them, or raise with every key that does not fit.

    Tensors are assigned, not copied: with a module built on the meta device and a memory-mapped source there is never
    a second copy of the parameters. A parameter that is sharded (a ``DTensor``) takes its own slice of the source.

    Args:
        module: any module, its tensors on the meta device or not.
        weights: tensors by the file's keys, :class:`Weights` for one.
        rename: the file's key → the module's, None for a key of no counterpart.
        may_miss: pattern (``fnmatch``) of the module's keys → why the file need not have them. They keep their values.
        may_drop: pattern of the file's keys → why they are not used.
        dtype: converts floating tensors (which copies them); None keeps the file's.
        device: where tensors go that the module has on the meta device; the others stay where they are.

    Returns:
        What was loaded, and what was not, with the reasons.

    Raises:
        TensorsError: keys missing or left over without a reason, two keys for one tensor, other shapes; lists all.
    """
    may_miss, may_drop = may_miss or {}, may_drop or {}
    own = module.state_dict(keep_vars=True)
    sources: dict[str, str] = {}
    extra: dict[str, str] = {}
    problems: list[str] = []
    for key in weights:
        target = rename(key)
        if reason := _reason(key, may_drop):
            extra[key] = reason
        elif target is None or target not in own:
            problems.append(f"extra: {key}" + (f" (as {target})" if target not in (None, key) else ""))
        elif target in sources:
            problems.append(f"double: {sources[target]} and {key} are both {target}")
        else:
            sources[target] = key
    missing = {key: _reason(key, may_miss) for key in own if key not in sources}
    problems += [f"missing: {key}" for key, reason in missing.items() if reason is None]
    state: dict[str, Tensor] = {}
    for target, key in sources.items():
        value = weights[key]
        if value.shape != own[target].shape:
            problems.append(f"shape: {key} is {tuple(value.shape)}, {target} is {tuple(own[target].shape)}")
            continue
        state[target] = _placed(value, own[target], dtype, device)
    if problems:
        where = f"{weights.path}: " if isinstance(weights, Weights) else ""
        listed = "\n  ".join(problems)
        raise TensorsError(f"{where}{len(problems)} keys do not fit {type(module).__name__}:\n  {listed}")
    module.load_state_dict(state, strict=False, assign=True)
    return LoadReport(len(state), {key: reason for key, reason in missing.items() if reason}, extra)


def _placed(value: Tensor, like: Tensor, dtype: torch.dtype | None, device: torch.device | str) -> Tensor:
    if dtype is not None and value.is_floating_point():
        value = value.to(dtype)
    if isinstance(like, DTensor):  # every rank cuts its own slice; nothing is sent
        return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)
    return value.to(device if like.is_meta else like.device)


def _reason(key: str, patterns: Mapping[str, str]) -> str | None:
    return next((reason for pattern, reason in patterns.items() if fnmatchcase(key, pattern)), None)


def _shards(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise TensorsError(f"no weights at {folder}: give a .safetensors file or the folder that holds one")
    indices = sorted(folder.glob("*.safetensors.index.json"))
    files = sorted(folder.glob("*.safetensors"))
    if len(indices) == 1:
        names = sorted(set(json.loads(indices[0].read_text("utf-8"))["weight_map"].values()))
        if strange := [name for name in names if Path(name).name != name]:
            raise TensorsError(f"{indices[0]} names files outside its folder: {', '.join(strange)}")
        if absent := [name for name in names if not (folder / name).is_file()]:
            raise TensorsError(f"{folder} lacks {', '.join(absent)}, which its index names")
        return [folder / name for name in names]
    if indices or len(files) != 1:
        found = ", ".join(path.name for path in indices + files) or "none"
        raise TensorsError(f"{folder} must hold one .safetensors file or one index of shards; found {found}")
    return files
