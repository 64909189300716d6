from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from curation.av.speech_time import runs, speech_frames


def test_a_tick_is_speech_when_its_middle_is() -> None:
    assert speech_frames([(0.03, 0.10), (0.15, 0.19)], 5).tolist() == [False, True, False, False, True]
    assert not speech_frames([], 3).any()
    assert speech_frames([(0.0, 9.0)], 3).all()


@given(st.lists(st.booleans(), max_size=40))
def test_runs_rebuild_the_mask(mask: list[bool]) -> None:
    rebuilt = np.zeros(len(mask), bool)
    found = runs(np.array(mask, bool))
    for start, stop in found:
        assert start < stop and not rebuilt[max(start - 1, 0) : stop].any()
        rebuilt[start:stop] = True
    assert rebuilt.tolist() == mask
