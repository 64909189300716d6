"""No source and no speaker in two splits, whatever joins them, and nothing moves without need."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.release.split import assign_splits

SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}
CLIPS = st.lists(
    st.tuples(st.integers(0, 12), st.one_of(st.none(), st.just(""), st.sampled_from("abcdefgh"))),
    min_size=1,
    max_size=40,
)


def table(clips) -> pa.Table:
    return pa.table(
        {
            "key": [f"k{number}" for number in range(len(clips))],
            "source": [f"s{source}" for source, _ in clips],
            "speaker": pa.array([speaker for _, speaker in clips], pa.string()),
        }
    )


def assigned(clips, before=None) -> list[str]:
    return assign_splits(table(clips), ["source", "speaker"], SHARES, before=before).to_pylist()


def leaks(clips, splits) -> list[str]:
    found = defaultdict(set)
    for (source, speaker), split in zip(clips, splits):
        found["source", source].add(split)
        if speaker:
            found["speaker", speaker].add(split)
    return [name for name, values in found.items() if len(values) > 1]


@given(CLIPS)
def test_no_source_and_no_speaker_is_in_two_splits(clips):
    splits = assigned(clips)
    assert not leaks(clips, splits)
    assert set(splits) <= set(SHARES)


@given(CLIPS, st.randoms(use_true_random=False))
def test_the_order_of_clips_does_not_matter(clips, rng):
    shuffled = list(range(len(clips)))
    rng.shuffle(shuffled)
    before = assigned(clips)
    assert assigned([clips[number] for number in shuffled]) == [before[number] for number in shuffled]


@given(CLIPS, CLIPS)
def test_added_clips_move_only_what_they_join(clips, more):
    """Clips stay in their split, except where a group that spans several now goes to the first of them."""
    before = assigned(clips)
    after = assigned(clips + more, before=table(clips).append_column("split", pa.array(before)))
    assert not leaks(clips + more, after)
    for old, new in zip(before, after):
        assert list(SHARES).index(new) <= list(SHARES).index(old)
    alone = {source for source, _ in clips} - {source for source, _ in more}
    voices = {speaker for _, speaker in more}
    for (source, speaker), old, new in zip(clips, before, after):
        others = [c for c in clips if c[0] == source or (speaker and c[1] == speaker)]
        if all(c[0] in alone and not (c[1] and c[1] in voices) and c in ((source, speaker),) for c in others):
            assert old == new


def test_shares_are_met_over_many_sources():
    clips = [(number, None) for number in range(5000)]
    counts = {split: share / 5000 for split, share in zip(*np.unique(assigned(clips), return_counts=True))}
    assert counts == pytest.approx(SHARES, abs=0.03)


def test_a_chain_of_speakers_and_sources_is_one_group():
    clips = [(number // 2, "abcdefgh"[(number + 1) // 2]) for number in range(12)]
    assert len(set(assigned(clips))) == 1


def test_errors():
    with pytest.raises(ValueError, match="shares"):
        assign_splits(table([(1, None)]), ["source"], {"train": 0.0})
    with pytest.raises(ValueError, match="clip k0 has no value in any of speaker"):
        assign_splits(table([(1, None)]), ["speaker"], SHARES)
