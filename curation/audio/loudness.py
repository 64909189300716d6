"""Level, silence, clipping and bandwidth of the source's own audio channels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from engine.stage import OpenClip, Outcome, Stage, StageConfig, Value, field
from perception import levels
from perception.bs1770 import integrated_loudness, true_peak


class LoudnessConfig(StageConfig):
    """Levels that define the measures.

    Attributes:
        silence_dbfs: a 50 ms frame whose RMS is below this is silent.
        bandwidth_db: the spectrum ends where it stays this far below its highest point.
    """

    silence_dbfs: float = -60.0
    bandwidth_db: float = -60.0


class Loudness(Stage[OpenClip]):
    """Whether there is audio, how loud, and how badly it was recorded or resampled.

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
        powers = levels.channel_powers(audio)
        return {
            "has_audio": True,
            "digital_silence_ratio": levels.digital_silence_ratio(audio),
            "silence_ratio": levels.silence_ratio(audio, rate, self.config.silence_dbfs),
            "mean_dbfs": levels.decibels(float(powers.mean())),
            "integrated_lufs": integrated_loudness(audio, rate),
            "true_peak_dbfs": levels.decibels(true_peak(audio) ** 2),
            "clipped_ratio": levels.clipped_ratio(audio),
            "bandwidth_hz": levels.bandwidth(audio, rate, self.config.bandwidth_db),
            "dc_offset": levels.dc_offset(audio),
            "channel_imbalance_db": levels.channel_imbalance(powers),
        }
