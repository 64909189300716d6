from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curation.audio.snr import Snr
from engine.stage import NotApplicable, Value
from media.clip import ClipMedia

from .conftest import media_of, opened


@pytest.fixture(scope="module")
def stage(weights: Callable[..., dict[str, Path]]) -> Snr:
    stage = Snr()
    stage.setup(weights(*stage.weights()))
    return stage


def test_noise_lowers_every_measure_of_real_speech(stage: Snr, interview_speech: np.ndarray):
    noise = np.random.default_rng(0).normal(size=len(interview_speech))
    noise *= np.sqrt(np.mean(interview_speech**2)) / np.sqrt(np.mean(noise**2))
    outcomes = stage.score([opened(media_of(speech)) for speech in (interview_speech, interview_speech + noise)])
    assert all(isinstance(outcome, Value) for outcome in outcomes)
    table = pa.Table.from_pylist([dict(outcome.values) for outcome in outcomes], schema=stage.values)
    clean, noisy = table.to_pylist()
    assert noisy["snr_db"] == pytest.approx(0, abs=3)
    for column in ("snr_db", "snr_floor_db", "dnsmos_sig", "dnsmos_bak", "dnsmos_ovrl"):
        assert noisy[column] < clean[column]
    assert noisy["noise_floor_dbfs"] > clean["noise_floor_dbfs"] + 6
    assert len(clean["snr_over_time_db"]) == 25
    assert all(1 <= clean[f"dnsmos_{part}"] <= 5 for part in ("sig", "bak", "ovrl"))


def test_without_speech_there_is_no_ratio(stage: Snr):
    silent, absent = stage.score([opened(media_of(np.zeros(48_000))), opened(ClipMedia(3.0))])
    assert silent == NotApplicable("no speech")
    assert absent == NotApplicable("no audio")
