from __future__ import annotations

import cv2
import numpy as np
import pytest

from perception import image
from tests.perception.conftest import enlarged


def test_bars_need_a_straight_edge(grey):
    framed = cv2.copyMakeBorder(grey, 0, 0, 40, 20, cv2.BORDER_CONSTANT, value=5)
    assert image.bars([framed, framed]) == (0, 0, 40, 20)
    night = np.uint8(grey * np.linspace(0, 1, len(grey))[:, None] ** 3)  # dark above, without an edge
    assert image.bars([night])[0] == 0
    assert image.bars([np.zeros_like(grey)]) == (0, 0, 0, 0)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_the_cutoff_of_an_enlarged_image_is_where_its_detail_ends(factor):
    rng = np.random.default_rng(1)
    frequency = np.hypot(np.fft.fftfreq(512)[:, None], np.fft.rfftfreq(512)[None])
    natural = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(512, 512))) / np.maximum(frequency, 1 / 512))
    natural_image = np.uint8(np.clip(128 + 40 * natural / natural.std(), 0, 255))
    assert image.cutoff(image.spectrum([natural_image])) == 0.5
    found = image.cutoff(image.spectrum([enlarged(natural_image, factor)]))
    assert 0.45 / factor < found < 0.68 / factor


def test_blockiness_is_of_the_grid_alone(grey):
    blocks = enlarged(grey, 8, cv2.INTER_NEAREST)
    assert image.blockiness(grey) < 0.3
    assert image.blockiness(blocks) > 2
    assert image.blockiness(np.roll(blocks, 3, axis=1)) > 2


@pytest.mark.parametrize("deviation", [2.0, 6.0])
def test_noise_is_estimated(grey, deviation):
    smooth = cv2.GaussianBlur(grey, (0, 0), 4)
    noisy = smooth + np.random.default_rng(2).normal(0, deviation, grey.shape)
    assert image.noise(np.uint8(noisy.clip(0, 255))) == pytest.approx(deviation, rel=0.25)
