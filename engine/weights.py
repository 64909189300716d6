"""The one registry of model files: resolve from a path, then the cache, and fetch when told to.

A job never downloads while it runs: :func:`resolve` names what is missing and the command that fetches it,
before any work starts. ``python -m engine.weights fetch NAME…`` downloads; every file's sha256 is checked
before it takes its place in the cache.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, model_validator

REGISTRY_FILE = Path(__file__).resolve().parents[1] / "configs" / "weights.yaml"


class WeightsError(Exception):
    """A model file is missing, unknown or not what its checksum says."""


class WeightSource(BaseModel):
    """Exactly one of ``package`` (with ``members``), ``url`` or ``hub`` (with ``file``)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    package: str | tuple[str, ...] | None = None
    members: tuple[str, ...] = ()
    url: str | None = None
    hub: str | None = None
    file: str | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> WeightSource:
        if sum(kind is not None for kind in (self.package, self.url, self.hub)) != 1:
            raise ValueError("a source has exactly one of package, url, hub")
        if (self.package is not None) != bool(self.members):
            raise ValueError("package and members come together")
        if (self.hub is not None) != (self.file is not None):
            raise ValueError("hub and file come together")
        return self


class Weight(BaseModel):
    """One registry entry; ``sha256`` is absent only where the publisher states none."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    use: str
    sources: tuple[WeightSource, ...] = ()
    revision: str
    sha256: str | None = None
    bytes: int | None = None
    licence: str
    licence_note: str = ""


@lru_cache
def registry(path: Path = REGISTRY_FILE) -> Mapping[str, Weight]:
    entries = yaml.safe_load(path.read_text("utf-8"))
    return {name: Weight.model_validate(entry) for name, entry in entries.items()}


def lookup(name: str) -> Weight:
    try:
        return registry()[name]
    except KeyError:
        raise WeightsError(f"no model named {name!r} in {REGISTRY_FILE.name}") from None


def cache_dir() -> Path:
    """``$UNITALKING_CACHE``, else ``unitalking`` under the user's cache folder."""
    if root := os.environ.get("UNITALKING_CACHE"):
        return Path(root)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "unitalking"


def cached_path(name: str) -> Path:
    weight = lookup(name)
    suffix = "".join(Path(_file_name(weight)).suffixes[-1:])
    return cache_dir() / "weights" / f"{name}-{weight.revision}{suffix}"


def find(name: str, overrides: Mapping[str, str | Path] | None = None) -> Path | None:
    """The file of ``name``: an explicit path, else the cache; ``None`` when it is not there.

    Raises:
        WeightsError: an explicit path that does not exist.
    """
    explicit = (overrides or {}).get(name)
    if explicit is not None:
        path = Path(explicit).expanduser()
        if not path.is_file():
            raise WeightsError(f"{name}: no file at the given path {path}")
        return path
    path = cached_path(name)
    return path if path.is_file() else None


def resolve(names: Iterable[str], overrides: Mapping[str, str | Path] | None = None) -> dict[str, Path]:
    """Paths of all ``names``, checked against their sha256.

    Raises:
        WeightsError: naming every missing file and the command that fetches them all.
    """
    found = {name: find(name, overrides) for name in names}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        uses = "\n".join(f"  {name}: {lookup(name).use} ({_where(lookup(name))})" for name in missing)
        raise WeightsError(
            f"missing model files:\n{uses}\nfetch them with: python -m engine.weights fetch {' '.join(missing)}\n"
            f"or give a path: --set weights.{missing[0]}=FILE"
        )
    paths = {name: path for name, path in found.items() if path is not None}
    for name, path in paths.items():
        _verify(name, path, explicit=name in (overrides or {}))
    return paths


def file_hash(path: Path) -> str:
    stat = path.stat()
    return _file_hash(path, stat.st_size, stat.st_mtime_ns)


@lru_cache
def _file_hash(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fetch(name: str) -> Path:
    """Download ``name`` into the cache unless it is there, trying its sources in order.

    Raises:
        WeightsError: no source gave a file with the registered sha256.
    """
    target = cached_path(name)
    if target.is_file():
        _verify(name, target, explicit=False)
        return target
    weight = lookup(name)
    problems = []
    target.parent.mkdir(parents=True, exist_ok=True)
    for source in weight.sources:
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            partial = Path(folder) / "partial"
            try:
                _download(source, partial, Path(folder))
                _verify(name, partial, explicit=False)
            except (OSError, WeightsError, subprocess.CalledProcessError, zipfile.BadZipFile, KeyError) as error:
                detail = getattr(error, "stderr", None) or error
                problems.append(f"  {_describe(source)}: {str(detail).strip()[-500:]}")
                continue
            partial.replace(target)
            return target
    reasons = "\n".join(problems) or "  it has no source: give a path with --set weights.<name>=FILE"
    raise WeightsError(f"could not fetch {name} ({weight.use}):\n{reasons}")


def _verify(name: str, path: Path, *, explicit: bool) -> None:
    expected = lookup(name).sha256
    # An explicit path is the user's own choice of file (a retrained model, say): its own hash enters the
    # stage's fingerprint, so it is never mistaken for the registered one.
    if explicit or expected is None:
        return
    actual = file_hash(path)
    if actual != expected:
        raise WeightsError(
            f"{name}: {path} has sha256 {actual}, the registry says {expected}; delete it and fetch again"
        )


def _download(source: WeightSource, target: Path, folder: Path) -> None:
    if source.url is not None:
        with urllib.request.urlopen(source.url, timeout=60) as response, target.open("wb") as out:
            shutil.copyfileobj(response, out)
        return
    if source.hub is not None:
        from huggingface_hub import hf_hub_download  # an optional dependency, needed for hub sources alone

        repository, _, revision = source.hub.partition("@")
        shutil.copyfile(hf_hub_download(repository, source.file, revision=revision or None), target)
        return
    packages = (source.package,) if isinstance(source.package, str) else source.package
    pip = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--dest",
        str(folder),
    ]
    subprocess.run([*pip, *packages], check=True, capture_output=True, text=True)
    wheels = [zipfile.ZipFile(path) for path in sorted(folder.glob("*.whl"))]
    with target.open("wb") as out:
        for member in source.members:
            wheel = next((wheel for wheel in wheels if member in wheel.namelist()), None)
            if wheel is None:
                raise WeightsError(f"no member {member} in {', '.join(packages)}")
            with wheel.open(member) as stream:
                shutil.copyfileobj(stream, out)


def _describe(source: WeightSource) -> str:
    if source.package is not None:
        return source.package if isinstance(source.package, str) else ", ".join(source.package)
    return source.url or f"{source.hub}/{source.file}"


def _where(weight: Weight) -> str:
    size = f"{weight.bytes / 1e6:.1f} MB, " if weight.bytes else ""
    return size + (", ".join(map(_describe, weight.sources)) or "by path only")


def _file_name(weight: Weight) -> str:
    for source in weight.sources:
        if source.members:
            return source.members[0]
        if source.url or source.file:
            return (source.file or source.url).rsplit("/", 1)[-1]
    return ""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m engine.weights",
        description="List or fetch the model files of the registry (configs/weights.yaml).",
        epilog="examples:\n  python -m engine.weights list\n  python -m engine.weights fetch silero_vad dnsmos",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=("list", "fetch"))
    parser.add_argument("names", nargs="*", help="registry names; for list, none means all")
    options = parser.parse_args(arguments)
    try:
        if options.command == "list":
            for name in options.names or registry():
                state = "cached" if cached_path(name).is_file() else "absent"
                print(f"{state}  {name:20} {lookup(name).licence:12} {lookup(name).use} ({_where(lookup(name))})")
            return 0
        if not options.names:
            parser.error("fetch needs at least one name")
        for name in options.names:
            print(f"{name}: {fetch(name)}", flush=True)
    except WeightsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
