"""Sample-rate conversion and down-mixing with libswresample."""

from __future__ import annotations

import av
import numpy as np


def resample(signal: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """float32 ``[channels, n]`` or ``[n]`` at ``rate`` Hz, to the same at ``new_rate``, aligned at sample 0.

    The result has ``round(n * new_rate / rate)`` samples.
    """
    if signal.ndim == 1:
        return resample(signal[None], rate, new_rate)[0]
    return np.concatenate([_convert(channel[None], rate, "mono", new_rate) for channel in signal])


def to_mono(signal: np.ndarray, rate: int, layout: str, new_rate: int) -> np.ndarray:
    """float32 ``[channels, n]`` to ``[n]`` mono at ``new_rate`` Hz.

    One or two channels are averaged; more are mixed with the standard coefficients of ``layout`` (FFmpeg's
    name of it, ``"5.1"``), or averaged where the layout has no name.
    """
    if len(signal) <= 2 or av.AudioLayout(layout).nb_channels != len(signal) or "channels" in layout:
        signal, layout = signal.mean(axis=0, keepdims=True, dtype=np.float32), "mono"
    return _convert(signal, rate, layout, new_rate)[0]


def packed_frame(signal: np.ndarray, rate: int, layout: str) -> av.AudioFrame:
    """float32 ``[channels, n]`` as an interleaved frame (a planar one of 8 channels cannot be filled in PyAV 18)."""
    packed = np.ascontiguousarray(signal.T, np.float32).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
    frame.sample_rate = rate
    return frame


def _convert(signal: np.ndarray, rate: int, layout: str, new_rate: int) -> np.ndarray:
    length = round(signal.shape[1] * new_rate / rate)
    if length == 0 or (layout == "mono" and rate == new_rate):
        return signal[:, :length].astype(np.float32)
    frame = packed_frame(signal, rate, layout)
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=new_rate)
    parts = [part.to_ndarray() for part in (*resampler.resample(frame), *resampler.resample(None))]
    joined = np.concatenate(parts, axis=1)[:, :length]
    return np.pad(joined, ((0, 0), (0, length - joined.shape[1])))
