"""Entries of the registry: where a model comes from, its files with sizes and hashes, its licence."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Annotated
from urllib.parse import quote

import yaml
from pydantic import Field, StringConstraints, ValidationError, field_validator, model_validator

from kit.config import Strict
from kit.errors import Fault, UserError
from unitalking_data import licences

REGISTRY_FILE = Path(__file__).resolve().parents[2] / "configs" / "weights.yaml"
HUB = "https://huggingface.co"

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Md5 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class WeightsError(UserError):
    """A model file is missing, unknown or not what its checksum says."""


class FetchError(WeightsError, Fault):
    """A model file could not be downloaded."""


class WeightSource(Strict):
    """Exactly one of ``package``, ``url`` and ``hub``.

    Attributes:
        package: requirements of wheels; the file is the concatenation of ``members``.
        members: files inside the wheels.
        url: of the file, or, ending in ``/``, of the folder that an entry's files are in.
        hub: repository on the Hugging Face hub, read at the entry's revision.
        file: in the repository, for an entry of one file.
        folder: of the repository, that the entry's files are in; the root by default.
    """

    package: str | tuple[str, ...] | None = None
    members: tuple[str, ...] = ()
    url: str | None = None
    hub: str | None = None
    file: str | None = None
    folder: str = ""

    @model_validator(mode="after")
    def _one_kind(self) -> WeightSource:
        if sum(kind is not None for kind in (self.package, self.url, self.hub)) != 1:
            raise ValueError("a source has exactly one of package, url, hub")
        if (self.package is not None) != bool(self.members):
            raise ValueError("package and members come together")
        if self.hub is None and (self.file is not None or self.folder):
            raise ValueError("file and folder are for hub sources")
        return self

    @property
    def packages(self) -> tuple[str, ...]:
        return (self.package,) if isinstance(self.package, str) else self.package or ()

    @property
    def text(self) -> str:
        """For messages."""
        return ", ".join(self.packages) or self.url or "/".join(filter(None, (self.hub, self.file or self.folder)))

    def address(self, revision: str, file: str) -> str:
        """URL of a file of the entry; ``file`` is ``""`` where it has only one."""
        if self.url is not None:
            return self.url + quote(file)
        path = "/".join(filter(None, (self.folder, self.file or file)))
        return f"{hub_endpoint()}/{self.hub}/resolve/{quote(revision, safe='')}/{quote(path)}"


class WeightFile(Strict):
    """One file. None stands for what the publisher does not state or could not be read; it is never guessed.

    Attributes:
        sha256: pinned at the first fetch where it is None.
        bytes: size.
        md5: the publisher's, where no sha256 is stated; checked when the file is downloaded.
    """

    sha256: Sha256 | None
    bytes: int | None = Field(ge=0)
    md5: Md5 | None = None


class Weight(Strict):
    """One entry: one file (``sha256``, ``bytes``), or a folder of several (``files``, by path in the folder)."""

    use: str
    sources: tuple[WeightSource, ...] = ()
    revision: str
    sha256: Sha256 | None = None
    bytes: int | None = Field(None, ge=0)
    md5: Md5 | None = None
    files: Mapping[str, WeightFile] = Field(default_factory=dict)
    licence: str = Field(min_length=1)
    licence_note: str = ""

    @field_validator("revision")
    @classmethod
    def _plain_revision(cls, revision: str) -> str:
        if not _NAME.fullmatch(revision):
            raise ValueError(f"revision {revision!r} cannot be part of a file name")
        return revision

    @field_validator("files")
    @classmethod
    def _inside(cls, files: Mapping[str, WeightFile]) -> Mapping[str, WeightFile]:
        for path in files:
            if not all(_NAME.fullmatch(part) for part in path.split("/")):
                raise ValueError(f"file {path!r} must be a plain relative path")
        return files

    @model_validator(mode="after")
    def _one_layout(self) -> Weight:
        stated = self.model_fields_set & {"sha256", "bytes", "md5"}
        if self.files and stated:
            raise ValueError(f"{', '.join(sorted(stated))}: stated for each of the files, not for the entry")
        if self.files and any(source.package or source.file for source in self.sources):
            raise ValueError("several files come from a hub folder or a url that ends in /")
        if not self.files and self.sources and not {"sha256", "bytes"} <= self.model_fields_set:
            raise ValueError("state sha256 and bytes; null where the publisher states none")
        return self

    @property
    def parts(self) -> Mapping[str, WeightFile]:
        """All files by path in the entry's folder; the only file's is ``""``."""
        return self.files or {"": WeightFile(sha256=self.sha256, bytes=self.bytes, md5=self.md5)}

    @property
    def commercial(self) -> bool | None:
        """Whether the licence permits commercial use; None is unknown."""
        return licences.lookup(self.licence).commercial


@dataclass(frozen=True)
class Reference:
    """A registered model, or a file or folder of one.

    Attributes:
        name: of the entry.
        inner: path of the file or folder in the entry's folder; ``""`` is the whole entry.
    """

    name: str
    weight: Weight
    inner: str = ""

    @property
    def text(self) -> str:
        return f"{self.name}/{self.inner}" if self.inner else self.name

    @property
    def files(self) -> dict[str, WeightFile]:
        """Those that are meant, by path in the entry's folder."""
        parts = self.weight.parts
        return {path: file for path, file in parts.items() if not self.inner or _is_in(path, self.inner)}


def registry() -> Mapping[str, Weight]:
    """All entries by name.

    Raises:
        WeightsError: the registry's file is not valid.
    """
    return _read(REGISTRY_FILE)


@lru_cache
def _read(path: Path) -> Mapping[str, Weight]:
    entries = {}
    for name, content in yaml.safe_load(path.read_text("utf-8")).items():
        try:
            if not _NAME.fullmatch(name):
                raise WeightsError(f"{path.name}: {name!r} is no plain name")
            entries[name] = Weight.model_validate(content)
        except ValidationError as error:
            reasons = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise WeightsError(f"{path.name}: {name}: {reasons}") from None
    return entries


def lookup(name: str) -> Weight:
    """The entry of this name.

    Raises:
        WeightsError: there is none.
    """
    try:
        return registry()[name]
    except KeyError:
        raise WeightsError(f"no model named {name!r} in {REGISTRY_FILE.name}") from None


def is_registered(text: str) -> bool:
    """Whether ``NAME`` or the name of ``NAME/PATH`` is an entry's."""
    return text.partition("/")[0] in registry()


def parse(text: str) -> Reference:
    """``NAME``, or ``NAME/PATH`` for a file or folder of an entry with several files.

    Raises:
        WeightsError: no such entry, or no such file in it.
    """
    name, _, inner = text.partition("/")
    reference = Reference(name, lookup(name), inner.rstrip("/"))
    if not reference.files:
        raise WeightsError(
            f"{name} has no file {inner!r}; it has {', '.join(filter(None, reference.weight.parts)) or 'one file'}"
        )
    return reference


def hub_endpoint() -> str:
    """``$HF_ENDPOINT``, else the public hub."""
    return os.environ.get("HF_ENDPOINT", HUB).rstrip("/")


def _is_in(path: str, inner: str) -> bool:
    return PurePosixPath(path).is_relative_to(inner)
