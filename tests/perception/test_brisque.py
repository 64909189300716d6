from __future__ import annotations

import cv2
import numpy as np
import pytest

from perception.brisque import Brisque
from tests.perception.conftest import enlarged


@pytest.fixture(scope="module")
def brisque(weights) -> Brisque:
    return Brisque(*weights("brisque_model", "brisque_ranges").values())


def test_brisque_ranks_every_degradation_below_the_original(brisque, grey):
    original = brisque(grey)
    quality = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, 8])[1]
    noisy = np.uint8((grey + np.random.default_rng(3).normal(0, 25, grey.shape)).clip(0, 255))
    for worse in (cv2.GaussianBlur(grey, (0, 0), 2), enlarged(grey, 4), cv2.imdecode(quality, 0), noisy):
        assert brisque(worse) > original + 10
    assert -20 < original < 50
    assert brisque(np.full((64, 64), 90, np.uint8)) is None
    assert brisque(grey[:20]) is None


def test_brisque_never_runs_its_pickle(tmp_path, weights):
    trap, ran = tmp_path / "ranges.pickle", tmp_path / "ran"
    trap.write_bytes(b"cos\nsystem\n(S'touch " + str(ran).encode() + b"'\ntR.")
    with pytest.raises(ValueError, match="72 numbers"):
        Brisque(weights("brisque_model")["brisque_model"], trap)
    assert not ran.exists()
