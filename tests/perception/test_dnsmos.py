from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from perception.dnsmos import Dnsmos


def test_dnsmos_equals_the_public_implementation(weights: Callable[..., dict[str, Path]]):
    """Values of ``speechmos.dnsmos.run`` (0.0.1.1) for the same 5 s."""
    time = np.arange(5 * 16_000) / 16_000
    audio = np.random.default_rng(7).normal(size=len(time)) * 0.05 * (1 + np.sin(2 * np.pi * 3 * time))
    scores = Dnsmos(weights("dnsmos")["dnsmos"])(audio.astype(np.float32))
    np.testing.assert_allclose(scores, [[2.28268497, 2.73334128, 1.8298234]], atol=2e-3)


@pytest.mark.parametrize(("seconds", "windows"), [(0.5, 1), (9.01, 1), (12, 1), (14, 2), (27.1, 3)])
def test_dnsmos_windows_cover_the_clip(weights: Callable[..., dict[str, Path]], seconds: float, windows: int):
    model = Dnsmos(weights("dnsmos")["dnsmos"])
    seen: list[np.ndarray] = []
    model._model = type("Model", (), {"run": lambda self, _, feed: [seen.append(feed["input_1"]) or np.ones((1, 3))]})()
    assert model(np.zeros(round(seconds * 16_000), np.float32)).shape == (windows, 3)
    assert {window.shape for window in seen} == {(1, 144_160)}
