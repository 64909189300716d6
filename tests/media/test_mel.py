"""Mel spectra against closed forms, MFCC against the package that the lip-sync networks were trained with."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from python_speech_features import mfcc as reference_mfcc

from media.mel import hz_to_mel, log_mel, mel_filters, mel_to_hz, mfcc


@settings(max_examples=30, deadline=None)
@given(samples=st.integers(1, 5000), seed=st.integers(0, 1000), level=st.sampled_from([0.0, 1.0, 300.0, 32767.0]))
def test_mfcc_equals_python_speech_features(samples, seed, level):
    signal = np.random.default_rng(seed).uniform(-level, level, samples).astype(np.int16)
    expected = reference_mfcc(signal, 16000, numcep=13, winlen=0.025, winstep=0.010)
    np.testing.assert_allclose(mfcc(signal), expected, rtol=1e-9, atol=1e-9)


def test_mfcc_of_nothing_is_empty():
    assert mfcc(np.zeros(0, np.int16)).shape == (0, 13)


@pytest.mark.parametrize("scale", ["slaney", "htk"])
def test_mel_scale_round_trip(scale):
    hz = np.linspace(0, 20_000, 1001)
    np.testing.assert_allclose(mel_to_hz(hz_to_mel(hz, scale), scale), hz, atol=1e-6)


def test_mel_scale_known_points():
    assert hz_to_mel(1000.0, "slaney") == pytest.approx(15.0)
    assert hz_to_mel(6400.0, "slaney") == pytest.approx(42.0)
    assert hz_to_mel(1000.0, "htk") == pytest.approx(999.9855, abs=1e-3)


@pytest.mark.parametrize("scale", ["slaney", "htk"])
def test_filters_have_unit_area(scale):
    filters = mel_filters(44_100, 8192, 40, 0.0, 22_050.0, scale)
    assert filters.shape == (40, 4097)
    np.testing.assert_allclose(filters.sum(1) * 44_100 / 8192, 1.0, rtol=0.02)


@pytest.mark.parametrize("hz", [300.0, 1000.0, 4000.0])
def test_log_mel_peaks_in_the_band_of_a_tone(hz):
    tone = np.sin(2 * np.pi * hz * np.arange(16_000) / 16_000)
    spectra = log_mel(tone, 16_000, n_fft=1024, hop=160, n_mels=40, scale="htk")
    assert spectra.shape == (1 + (16_000 - 1024) // 160, 40)
    edges = mel_to_hz(np.linspace(0, hz_to_mel(8000.0, "htk"), 42), "htk")
    band = int(spectra.mean(0).argmax())
    assert edges[band] < hz < edges[band + 2]


def test_log_mel_floor_and_short_signal():
    silent = log_mel(np.zeros(4000), 16_000, n_fft=512, hop=160, window=400, n_mels=20, floor=1e-5)
    assert np.all(silent == np.float32(np.log(1e-5)))
    assert log_mel(np.zeros(100), 16_000, n_fft=512, hop=160, n_mels=20).shape == (0, 20)
