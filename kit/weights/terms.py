"""Whose model stands behind data or weights, and under which terms: what goes into manifests and onto cards."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from kit.config import Strict
from kit.weights.cache import cached_files, file_hash
from kit.weights.entries import is_registered, lookup, parse


class ModelUse(Strict):
    """A model that data or weights were made with, or that weights started from."""

    name: str = Field(description="entry of the registry; the name of the file or folder where no entry is known")
    kind: str = Field(description="what it was used as: audio_codec.vae, init.video …")
    licence: str = Field(description="as its publisher states it")
    commercial: bool | None = Field(description="whether the licence permits commercial use; null is unknown")
    note: str = Field("", description="what a user should know beyond that")
    revision: str | None = Field(None, description="of the publisher; null for a file that was given by its path")
    sha256: str | None = Field(None, description="of a single file")
    given: Literal["registry", "path"] = Field(
        description="`path`: the user's own file, of the model that it stands for"
    )

    @property
    def terms(self) -> str:
        """Licence, and whether it excludes commercial use, for a card."""
        return f"{self.licence}, non-commercial" if self.commercial is False else self.licence


def model_use(value: str | Path, kind: str, *, stands_for: str | None = None, hashed: bool = False) -> ModelUse:
    """The model that a configuration's value means.

    Args:
        value: a path, or a registered model; a path that exists is taken first.
        stands_for: entry whose terms hold for a path; None where that cannot be known.
        hashed: read a file that is given by its path to know its sha256.

    Raises:
        WeightsError: a registered model that has no such file.
    """
    path = Path(value).expanduser()
    if path.exists() or not is_registered(str(value)):
        sha256 = file_hash(path) if hashed and path.is_file() else None
        if stands_for is None:
            return ModelUse(
                name=path.name, kind=kind, licence="not known", commercial=None, sha256=sha256, given="path"
            )
        return _use(stands_for, kind, revision=None, sha256=sha256, given="path")
    reference = parse(str(value))
    hashes = [file.sha256 for file in cached_files(reference)]
    sha256 = hashes[0] if len(hashes) == 1 else None
    return _use(reference.name, kind, revision=reference.weight.revision, sha256=sha256, given="registry")


def _use(
    name: str, kind: str, *, revision: str | None, sha256: str | None, given: Literal["registry", "path"]
) -> ModelUse:
    weight = lookup(name)
    return ModelUse(
        name=name,
        kind=kind,
        licence=weight.licence,
        commercial=weight.commercial,
        note=weight.licence_note,
        revision=revision,
        sha256=sha256,
        given=given,
    )
