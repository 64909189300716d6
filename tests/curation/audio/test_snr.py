from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curation.audio.dnsmos import Dnsmos
from curation.audio.snr import Snr
from engine.stage import NotApplicable, Value
from media.clip import ClipMedia

from .conftest import media_of, opened


@pytest.fixture(scope="module")
def stage(weights: Callable[..., dict[str, Path]]) -> Snr:
    stage = Snr()
    stage.setup(weights(*stage.weights()))
    return stage


def test_noise_lowers_every_measure_of_real_speech(stage: Snr, interview: np.ndarray):
    noise = np.random.default_rng(0).normal(size=len(interview))
    noise *= np.sqrt(np.mean(interview**2)) / np.sqrt(np.mean(noise**2))
    outcomes = stage.score([opened(media_of(speech)) for speech in (interview, interview + noise)])
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


def test_dnsmos_equals_the_public_implementation(weights: Callable[..., dict[str, Path]]):
    """Values of ``speechmos.dnsmos.run`` (0.0.1.1) for the same 5 s."""
    time = np.arange(5 * 16_000) / 16_000
    sound = np.random.default_rng(7).normal(size=len(time)) * 0.05 * (1 + np.sin(2 * np.pi * 3 * time))
    scores = Dnsmos(weights("dnsmos")["dnsmos"])(sound.astype(np.float32))
    np.testing.assert_allclose(scores, [[2.28268497, 2.73334128, 1.8298234]], atol=2e-3)


@pytest.mark.parametrize(("seconds", "windows"), [(0.5, 1), (9.01, 1), (12, 1), (14, 2), (27.1, 3)])
def test_dnsmos_windows_cover_the_clip(weights: Callable[..., dict[str, Path]], seconds: float, windows: int):
    model = Dnsmos(weights("dnsmos")["dnsmos"])
    seen: list[np.ndarray] = []
    model._model = type("Model", (), {"run": lambda self, _, feed: [seen.append(feed["input_1"]) or np.ones((1, 3))]})()
    assert model(np.zeros(round(seconds * 16_000), np.float32)).shape == (windows, 3)
    assert {window.shape for window in seen} == {(1, 144_160)}
