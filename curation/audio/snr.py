"""How clean the speech is: signal to noise in dB, over the clip and over time, and DNSMOS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from curation.derived import speech_intervals, speech_probabilities
from engine.stage import SERIES, NotApplicable, OpenClip, Outcome, Stage, Value, field
from media.clip import ClipMedia
from perception.dnsmos import Dnsmos
from perception.levels import decibels
from perception.noise_floor import (
    frame_powers,
    pause_floor,
    pause_frames,
    ratio_db,
    ratio_over_time,
    spectral_floor,
    speech_frames,
)
from perception.vad import WINDOW_S, load_detector


class Snr(Stage[OpenClip]):
    """Speech against noise floor, only where there is speech.

    Measured on mixes of clean speech with noise at known ratios, ``snr_pauses_db`` is within 1 dB (median) of white
    and pink noise from 0 to 20 dB and follows music where it sounds in the pauses; ``snr_floor_db`` reads 1 to 3 dB low
    on them and misses music, whose spectrum has gaps too: see the events scorer for that.
    """

    name = "snr"
    version = "1"
    needs = frozenset({"audio"})
    values = pa.schema(
        [
            field("snr_db", pa.float32(), "snr_pauses_db where there is one, else snr_floor_db; dB, -20 to 80"),
            field("snr_pauses_db", pa.float32(), "Speech frames against the pauses' median power, 80-8000 Hz; dB"),
            field("snr_floor_db", pa.float32(), "Speech frames against the minimum-statistics floor (no pauses); dB"),
            field("pause_s", pa.float32(), "Pause that snr_pauses_db may rest on, s; under 0.3 s it is empty"),
            field("noise_floor_dbfs", pa.float32(), "Level of the noise that snr_db uses, dB of full scale"),
            field("snr_over_time_db", SERIES, "SNR a 0.32 s step against the floor around it, dB; null without speech"),
            field("dnsmos_sig", pa.float32(), "DNSMOS P.835 speech quality, mean over windows, 1 to 5"),
            field("dnsmos_bak", pa.float32(), "DNSMOS P.835 background (5: no noise), mean over windows, 1 to 5"),
            field("dnsmos_ovrl", pa.float32(), "DNSMOS P.835 overall quality, mean over windows, 1 to 5"),
        ]
    )

    def weights(self) -> tuple[str, ...]:
        return ("silero_vad", "dnsmos")

    def setup(self, weights: Mapping[str, Path]) -> None:
        self._detector = load_detector(weights["silero_vad"])
        self._dnsmos = Dnsmos(weights["dnsmos"])

    def score(self, items: Sequence[OpenClip]) -> list[Outcome]:
        return [self._score(item.media) for item in items]

    def _score(self, media: ClipMedia) -> Outcome:
        intervals = speech_intervals(media, self._detector)
        if not intervals:
            return NotApplicable("no speech" if len(media.speech) else "no audio")
        powers = frame_powers(media.speech)
        spoken = speech_frames(intervals, len(powers))
        pause = pause_frames(intervals, speech_probabilities(media, self._detector), len(powers))
        level = float(powers[spoken].sum(axis=1).mean())
        in_pauses, in_spectrum = pause_floor(powers, pause), spectral_floor(powers)
        floor = in_spectrum if in_pauses is None else in_pauses
        sig, bak, ovrl = self._dnsmos(media.speech).mean(axis=0)
        return Value(
            {
                "snr_db": _ratio(level, floor),
                "snr_pauses_db": _ratio(level, in_pauses),
                "snr_floor_db": _ratio(level, in_spectrum),
                "pause_s": float(pause.sum() * WINDOW_S),
                "noise_floor_dbfs": None if floor is None else decibels(floor),
                "snr_over_time_db": ratio_over_time(powers, spoken),
                "dnsmos_sig": float(sig),
                "dnsmos_bak": float(bak),
                "dnsmos_ovrl": float(ovrl),
            }
        )


def _ratio(speech: float, noise: float | None) -> float | None:
    return None if noise is None else ratio_db(speech, noise)
