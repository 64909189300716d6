from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.codecs.linear_audio import LinearAudioCodec

RATE = 16_000


def codec(**changes) -> LinearAudioCodec:
    return LinearAudioCodec(**{"rate": RATE, "n_fft": 1024, "hop": 256, "mels": 64, "group": 2, **changes})


def voice(pitch: float, seconds: float = 1.2) -> np.ndarray:
    """Harmonics under a formant, opened and closed three times."""
    time = np.arange(round(RATE * seconds)) / RATE
    harmonics = np.arange(1, int(3500 / pitch))
    weights = np.exp(-(((harmonics * pitch - 700) / 400) ** 2)) + 0.1
    audio = (weights[:, None] * np.sin(2 * np.pi * pitch * harmonics[:, None] * time)).sum(0)
    return (0.3 * audio / np.abs(audio).max() * np.sin(np.pi * 3 * time / seconds) ** 2).astype(np.float32)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 5000), st.integers(1, 3))
def test_the_shape_is_known_before(samples, group):
    one = codec(group=group, channels=8, iterations=1)
    audio = torch.rand(2, samples, generator=torch.Generator().manual_seed(samples)) - 0.5
    latent = one.encode(audio)
    assert latent.shape == (2, *one.latent_shape(samples)) and latent.isfinite().all()
    decoded = one.decode(latent)
    assert decoded.shape == (2, latent.shape[2] * group * one.hop) and decoded.isfinite().all()


def test_the_spectrogram_survives_exactly_when_all_channels_are_kept():
    whole = codec()
    audio = torch.from_numpy(voice(140.0))[None]
    latent = whole.encode(audio)
    again = whole.normaliser.normalise(
        (whole.mel(latent).unflatten(2, (-1, 2)).transpose(1, 2).flatten(2) @ whole.basis.T).transpose(1, 2)
    )
    torch.testing.assert_close(again, latent, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("pitch", [110.0, 150.0, 210.0])
def test_pitch_and_envelope_can_be_heard_after_decoding(pitch):
    one = codec()
    audio = voice(pitch)
    decoded = one.decode(one.encode(torch.from_numpy(audio)[None]))[0, : len(audio)].numpy()
    spectrum = [np.abs(np.fft.rfft(x * np.hanning(len(x)), 1 << 17)) for x in (audio, decoded)]
    autocorrelations = [np.fft.irfft(s**2)[: RATE // 80] for s in spectrum]
    lowest = RATE // 300
    heard = [RATE / (lowest + a[lowest:].argmax()) for a in autocorrelations]
    assert abs(heard[1] / heard[0] - 1) < 0.02
    envelopes = [np.convolve(np.square(x), np.ones(640) / 640, "same")[::160] ** 0.5 for x in (audio, decoded)]
    assert np.corrcoef(*envelopes)[0, 1] > 0.98


def test_decoding_is_deterministic_and_independent_of_the_batch():
    one = codec(channels=24, iterations=8)
    audios = torch.from_numpy(np.stack([voice(120.0), voice(190.0)]))
    latent = one.encode(audios)
    torch.testing.assert_close(one.decode(latent)[1:], one.decode(latent[1:]), atol=1e-5, rtol=0)


def test_silence_stays_silent():
    one = codec(iterations=4)
    assert one.decode(one.encode(torch.zeros(1, RATE))).abs().max() < 1e-3


@pytest.mark.parametrize("changes", [{"channels": 129}, {"n_fft": 300}, {"mels": 400}])
def test_settings_that_do_not_fit_are_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        codec(**changes)
