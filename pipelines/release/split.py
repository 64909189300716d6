"""Split clips into train, val and test by source and by speaker: repeatable, and stable when clips are added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from unitalking_data.permutation import hash64


def assign_splits(
    clips: pa.Table, together: Sequence[str], shares: Mapping[str, float], *, before: pa.Table | None = None
) -> pa.Array:
    """The split of each clip, strings ``[n]``.

    Clips that share a value in one of the columns ``together`` (a source, a speaker) belong together, and so do those
    that are joined by a chain of such clips. Each such group falls into a split by the hash of one of its values, the
    one with the smallest hash, which is seldom a value that was added later.

    Args:
        clips: ``key`` and the columns ``together``, strings; null or ``""`` joins nothing.
        shares: weight of each split, in their order.
        before: ``key`` and ``split`` of an earlier release. A group keeps its split; where new clips join groups of
            several splits, the first of them in the order of ``shares`` takes all, so that with ``train`` first nothing
            that was trained on is ever tested on.

    Raises:
        ValueError: shares that are not positive, or a clip without any value.
    """
    if not shares or any(not share > 0 for share in shares.values()):
        raise ValueError(f"shares of splits must be positive: {dict(shares)}")
    group, names = _groups(clips, together)
    names_of_splits = list(shares)
    bounds = np.cumsum(list(shares.values())) / sum(shares.values())
    draws = np.array([hash64("split", name) / 2**64 for name in names])
    number = np.minimum(np.searchsorted(bounds, draws, side="right"), len(bounds) - 1)
    if before is not None and len(before):
        place = pc.index_in(clips["key"], before["key"].combine_chunks())
        old = pc.index_in(before["split"].take(place), pa.array(names_of_splits)).to_numpy(zero_copy_only=False)
        known = np.isfinite(old.astype(float))
        pinned = np.full(len(names), len(names_of_splits))
        np.minimum.at(pinned, group[known], old[known].astype(int))
        number = np.where(pinned < len(names_of_splits), pinned, number)
    return pa.array(np.array(names_of_splits, object)[number[group]], pa.string())


def _groups(clips: pa.Table, together: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """The group of each clip, int ``[n]``, and the name of each group: its value with the smallest hash."""
    clip_of, value_of, values = [], [], []
    for column in together:
        stated = pc.if_else(pc.equal(clips[column], ""), None, clips[column])
        encoded = stated.combine_chunks().dictionary_encode()
        clip_of.append(np.flatnonzero(pc.is_valid(encoded).to_numpy(zero_copy_only=False)))
        value_of.append(encoded.indices.drop_null().to_numpy() + len(values))
        values += [f"{column}:{value}" for value in encoded.dictionary.to_pylist()]
    ends = (np.concatenate(clip_of), np.concatenate(value_of) + len(clips))
    nodes = len(clips) + len(values)
    edges = coo_array((np.ones(len(ends[0]), bool), ends), shape=(nodes, nodes))
    _, component = connected_components(edges, directed=False)
    used, group = np.unique(component[: len(clips)], return_inverse=True)
    names = [""] * len(used)
    for number in sorted(range(len(values)), key=lambda number: hash64("group", values[number]), reverse=True):
        names[np.searchsorted(used, component[len(clips) + number])] = values[number]
    if "" in names:
        key = clips["key"][int(np.flatnonzero(group == names.index(""))[0])]
        raise ValueError(f"clip {key} has no value in any of {', '.join(together)}, so nothing says where it belongs")
    return group, names
