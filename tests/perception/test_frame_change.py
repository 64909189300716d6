from __future__ import annotations

import numpy as np
import pytest

from perception.frame_change import CONTEXT, frame_changes


@pytest.mark.parametrize("context", [CONTEXT, 25])
def test_changes_measure_a_cut_at_its_last_frame(context: int) -> None:
    frames = np.zeros((context + 20 + context, 27, 48, 3), np.uint8)
    frames[context + 8 :] = 100
    found = frame_changes(frames, context)
    assert all(series.shape == (20,) for series in found)
    assert found.fast.argmax() == 7 and found.fast[7] > 30
    assert np.count_nonzero(found.fast) == 1
    assert found.lasting[7] == found.fast[7]
    assert found.ratio[7] > 100


def test_a_flash_does_not_last_and_a_fade_is_slow() -> None:
    flash = np.zeros((3 * CONTEXT, 27, 48, 3), np.uint8)
    flash[CONTEXT + 3] = 200
    found = frame_changes(flash, CONTEXT)
    assert found.fast[2] == found.fast[3] > 60 and found.lasting[2] == found.lasting[3] == 0
    fade = np.repeat(np.arange(3 * CONTEXT, dtype=np.uint8)[:, None], 27 * 48 * 3, 1).reshape(-1, 27, 48, 3)
    found = frame_changes(4 * fade, CONTEXT)
    np.testing.assert_allclose(found.slow, 12 * found.fast, rtol=0.05)
    assert found.ratio.max() < 1.5
