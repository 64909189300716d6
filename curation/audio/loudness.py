"""Level, silence, clipping and bandwidth of the source's own audio channels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from curation.audio.bs1770 import integrated_loudness, true_peak
from engine.stage import OpenClip, Outcome, Stage, StageConfig, Value, field

_ZERO = 2.0**-16  # below half a step of 16-bit audio
_FULL_SCALE = 0.99
_FRAME_S = 0.05


class LoudnessConfig(StageConfig):
    """Levels that define the measures.

    Attributes:
        silence_dbfs: a 50 ms frame whose RMS is below this is silent.
        bandwidth_db: the spectrum ends where it stays this far below its highest point.
    """

    silence_dbfs: float = -60.0
    bandwidth_db: float = -60.0


class Loudness(Stage[OpenClip]):
    """Whether there is sound, how loud, and how badly it was recorded or resampled.

    A clip without audio is a value too (``has_audio`` false, the rest empty): "muted" is about both.
    """

    name = "loudness"
    version = "1"
    Config = LoudnessConfig
    needs = frozenset({"audio"})
    values = pa.schema(
        [
            field("has_audio", pa.bool_(), "There is an audio stream and it has samples in the clip"),
            field("digital_silence_ratio", pa.float32(), "Share of samples that are zero in all channels, 0 to 1"),
            field("silence_ratio", pa.float32(), "Share of 50 ms frames under silence_dbfs in all channels, 0 to 1"),
            field("mean_dbfs", pa.float32(), "RMS level of all channels, dB of full scale; empty if all is zero"),
            field("integrated_lufs", pa.float32(), "Gated loudness, ITU-R BS.1770-4, LUFS; empty under -70 or 0.4 s"),
            field("true_peak_dbfs", pa.float32(), "Peak after fourfold oversampling, dB of full scale (may pass 0)"),
            field("clipped_ratio", pa.float32(), "Share of samples in runs of 3 or more at 0.99 or beyond, 0 to 1"),
            field("bandwidth_hz", pa.float32(), "Highest frequency within bandwidth_db of the spectrum's peak, Hz"),
            field("dc_offset", pa.float32(), "Largest absolute channel mean, 0 to 1 of full scale"),
            field("channel_imbalance_db", pa.float32(), "RMS of first against second channel, dB, 0 to 120; mono: 0"),
        ]
    )

    def score(self, items: Sequence[OpenClip]) -> list[Outcome]:
        return [Value(self._measure(item.media.audio, item.media.audio_rate)) for item in items]

    def _measure(self, audio: np.ndarray, rate: int) -> dict[str, float | bool | None]:
        if not audio.size:
            return dict.fromkeys(self.values.names) | {"has_audio": False}
        power = np.mean(np.square(audio), axis=1, dtype=np.float64)
        peak = true_peak(audio)
        return {
            "has_audio": True,
            "digital_silence_ratio": float(np.mean(np.abs(audio).max(axis=0) < _ZERO)),
            "silence_ratio": silence_ratio(audio, rate, self.config.silence_dbfs),
            "mean_dbfs": decibels(float(power.mean())),
            "integrated_lufs": integrated_loudness(audio, rate),
            "true_peak_dbfs": decibels(peak**2),
            "clipped_ratio": clipped_ratio(audio),
            "bandwidth_hz": bandwidth(audio, rate, self.config.bandwidth_db),
            "dc_offset": float(np.abs(audio.mean(axis=1, dtype=np.float64)).max()),
            "channel_imbalance_db": channel_imbalance(power),
        }


def decibels(power: float) -> float | None:
    """Level of a power (full scale 1) in dB, ``None`` for zero."""
    return 10 * math.log10(power) if power > 0 else None


def silence_ratio(audio: np.ndarray, rate: int, silence_dbfs: float) -> float:
    """Share of 50 ms frames (the last one may be shorter) with no channel's RMS at ``silence_dbfs`` or more."""
    starts = np.arange(0, audio.shape[1], max(1, round(rate * _FRAME_S)))
    lengths = np.diff(starts, append=audio.shape[1])
    power = np.add.reduceat(np.square(audio), starts, axis=1) / lengths
    return float(np.mean(power.max(axis=0) < 10 ** (silence_dbfs / 10)))


def clipped_ratio(audio: np.ndarray) -> float:
    """Share of samples that stand in runs of three or more at full scale."""
    full = np.abs(audio) >= _FULL_SCALE
    runs = full[:, :-2] & full[:, 1:-1] & full[:, 2:]
    member = np.zeros_like(full)
    for shift in range(3):
        member[:, shift : shift + runs.shape[1]] |= runs
    return float(member.mean())


def bandwidth(audio: np.ndarray, rate: int, below_peak_db: float) -> float | None:
    """Highest frequency in Hz that the sound reaches, ``None`` for digital silence or under 20 ms.

    Of each bin of a 20–46 ms spectrum the 95th percentile over time is taken (a click or one loud fricative does not
    decide), then the highest bin within ``below_peak_db`` of the highest one. 8 kHz telephone sound in a
    44.1 kHz file reads about 4.5 kHz whatever the file says.
    """
    mono = audio[np.argmax(np.square(audio).sum(axis=1))]
    size = 2 ** math.ceil(math.log2(rate * 0.02))
    if len(mono) < size:
        return None
    frames = np.lib.stride_tricks.sliding_window_view(mono, size)[:: size // 2] * np.hanning(size).astype(np.float32)
    power = np.square(np.abs(np.fft.rfft(frames, axis=1)))
    rank = int(0.95 * (len(power) - 1))
    spectrum = np.partition(power, rank, axis=0)[rank]
    if spectrum.max() == 0:
        return None
    last = np.flatnonzero(spectrum >= spectrum.max() * 10 ** (below_peak_db / 10))[-1]
    return float(last * rate / size)


def channel_imbalance(power: np.ndarray) -> float:
    """Level difference in dB of the first two channels' mean powers, at most 120."""
    if len(power) < 2:
        return 0.0
    first, second = np.maximum(power[:2], 1e-12)
    return min(120.0, abs(10 * math.log10(first / second)))
