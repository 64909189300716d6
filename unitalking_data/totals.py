"""Totals of a release that only its tables tell: sources, speakers, and which columns have values."""

from __future__ import annotations

from dataclasses import replace

import pyarrow.compute as pc

from unitalking_data.manifest import Manifest
from unitalking_data.schema import ATOM_FIELDS
from unitalking_data.storage import Store

ATOMS = tuple(field.name for field in ATOM_FIELDS)


def with_totals(store: Store, manifest: Manifest) -> Manifest:
    """The manifest with ``columns``, and with ``sources`` and ``speakers`` of each split, counted in ``meta/``.

    Of a caption column only the parts up to the first value are read.
    """
    sources: dict[str, set[str]] = {split: set() for split in manifest.splits}
    speakers: dict[str, set[str]] = {split: set() for split in manifest.splits}
    empty = list(ATOMS)
    for shard in manifest.shards:
        table = store.read_table([shard.part], ["source", "speaker", *empty])
        sources[shard.split].update(pc.unique(table["source"]).to_pylist())
        speakers[shard.split].update(pc.unique(table["speaker"].drop_null()).to_pylist())
        empty = [name for name in empty if table[name].null_count == len(table)]
    references = any(entry.rows for entry in manifest.files if entry.path.startswith("refs/"))
    return replace(
        manifest,
        splits={
            split: replace(totals, sources=len(sources[split]), speakers=len(speakers[split]))
            for split, totals in manifest.splits.items()
        },
        columns=[*(name for name in ATOMS if name not in empty), *(["references"] if references else [])],
    )
