"""Voice activity with Silero VAD: a speech probability a 32 ms window, and the intervals that follow from it.

detector = load_detector(weights["silero_vad"])
probabilities = detector.probabilities(speech)  # speech: float32 [n], 16 kHz
find_intervals(probabilities, len(speech) / 16_000)  # [(start_s, end_s), …]
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from media.clip import SPEECH_RATE
from perception.intervals import Interval
from perception.onnx import open_model

WINDOW = 512  # samples that one probability stands for
WINDOW_S = WINDOW / SPEECH_RATE
_CONTEXT = 64  # samples of the previous window that the network sees again


class SpeechDetector:
    """Silero VAD v6 (MIT, github.com/snakers4/silero-vad) through onnxruntime."""

    def __init__(self, path: Path) -> None:
        self._model = open_model(path)

    def probabilities(self, speech: np.ndarray) -> np.ndarray:
        """Probability of speech in each window of 16 kHz audio.

        Args:
            speech: float32 ``[n]`` in −1…1, mono.

        Returns:
            float32 ``[ceil(n / 512)]`` in 0…1: window *k* covers ``k · 0.032`` s to ``(k + 1) · 0.032`` s.
        """
        count = -(-len(speech) // WINDOW)
        padded = np.zeros((1, _CONTEXT + count * WINDOW), np.float32)
        padded[0, _CONTEXT : _CONTEXT + len(speech)] = speech
        state = np.zeros((2, 1, 128), np.float32)
        rate = np.array(SPEECH_RATE, np.int64)
        probabilities = np.zeros(count, np.float32)
        for k in range(count):
            window = padded[:, k * WINDOW : k * WINDOW + _CONTEXT + WINDOW]
            output, state = self._model.run(None, {"input": window, "state": state, "sr": rate})
            probabilities[k] = output[0, 0]
        return probabilities


@lru_cache
def load_detector(path: Path) -> SpeechDetector:
    """The detector of a model file, loaded once a process however many callers ask."""
    return SpeechDetector(path)


def find_intervals(
    probabilities: Sequence[float] | np.ndarray,
    duration_s: float,
    *,
    enter: float = 0.5,
    leave: float = 0.35,
    min_speech_s: float = 0.25,
    min_pause_s: float = 0.1,
    pad_s: float = 0.03,
) -> list[Interval]:
    """Speech intervals in seconds, ascending and disjoint, by hysteresis with Silero's published defaults.

    Speech begins at a window of ``enter`` or more and ends where the probability falls below ``leave`` and does
    not come back to ``enter`` within ``min_pause_s``. What is not longer than ``min_speech_s`` is dropped; the
    rest grows by ``pad_s`` at both ends, or by half the pause where two would overlap.
    """
    found: list[Interval] = []
    start = end = None
    for k, probability in enumerate(probabilities):
        now = k * WINDOW_S
        if probability >= enter:
            start, end = (now if start is None else start), None
        elif probability < leave and start is not None:
            end = now if end is None else end
            if now - end >= min_pause_s:
                found.append((start, end))
                start = end = None
    if start is not None:
        found.append((start, duration_s))
    found = [(start, end) for start, end in found if end - start > min_speech_s]

    edges = [0.0, *((left[1] + right[0]) / 2 for left, right in pairwise(found)), duration_s]
    return [
        (max(start - pad_s, before), min(end + pad_s, after))
        for (start, end), before, after in zip(found, edges, edges[1:])
    ]
