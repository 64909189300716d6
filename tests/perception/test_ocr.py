from __future__ import annotations

import numpy as np
import pytest

from perception.ocr import decode, outlines


def test_ctc_drops_blanks_and_repeats():
    scores = np.full((6, 4), 0.1)
    for step, (symbol, score) in enumerate([(1, 0.9), (1, 0.6), (0, 0.9), (1, 0.7), (2, 0.8), (0, 0.9)]):
        scores[step, symbol] = score
    assert decode(scores, ["", "a", "b", " "]) == ("aab", pytest.approx(0.8))
    assert decode(np.eye(4)[[0, 0]], ["", "a", "b", " "]) == ("", 0.0)


def test_db_outlines_grow_the_shrunken_core():
    probability = np.zeros((100, 200), np.float32)
    probability[40:51, 50:151] = 0.9
    probability[80:83, 10:12] = 0.9  # too small
    probability[10:20, 10:60] = 0.4  # above the map's threshold, below the box's
    (corners,) = outlines(probability)
    # 100 × 10 grows by 1.6 · 1000 / 220 = 7.3 on every side.
    np.testing.assert_allclose(corners, [[42.7, 32.7], [157.3, 32.7], [157.3, 57.3], [42.7, 57.3]], atol=0.6)
