"""Sentence-level speech intervals.

UniTalking (arXiv 2603.01418) names "SentenceASD" for this step; neither its code nor its description is public.
This stand-in is voice activity (Silero VAD) whose intervals are joined over the short pauses inside a sentence
(stops, breaths): what a sentence-level speech detector gives, not what that model computes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from curation.derived import speech_intervals, speech_probabilities
from engine.stage import INTERVALS, NotApplicable, OpenClip, Outcome, Stage, StageConfig, Value, field
from media.clip import SPEECH_RATE
from perception.intervals import Interval, join_intervals
from perception.vad import load_detector


class SentencesConfig(StageConfig):
    """Where a sentence ends.

    Attributes:
        max_pause_s: the longest pause inside one sentence, in seconds.
    """

    max_pause_s: float = 0.4


class Sentences(Stage[OpenClip]):
    """Where speech is, and how much of the clip it fills."""

    name = "sentences"
    version = "1"
    Config = SentencesConfig
    needs = frozenset({"audio"})
    values = pa.schema(
        [
            field("speech_intervals", INTERVALS, "Speech without its pauses of 0.1 s and more; s from clip start"),
            field(
                "intervals", INTERVALS, "Sentences: speech joined over pauses of up to max_pause_s; s from clip start"
            ),
            field("sentence_count", pa.int32(), "Number of sentence intervals"),
            field("speech_s", pa.float32(), "Total length of the speech intervals, s"),
            field("speech_ratio", pa.float32(), "Speech seconds over audio seconds, 0 to 1"),
            field("longest_gap_s", pa.float32(), "Longest stretch outside every sentence, the clip's ends included, s"),
            field("longest_sentence_s", pa.float32(), "Longest sentence interval, s; 0 without speech"),
            field("mean_probability", pa.float32(), "Mean speech probability over 32 ms windows, 0 to 1"),
        ]
    )

    def weights(self) -> tuple[str, ...]:
        return ("silero_vad",)

    def setup(self, weights: Mapping[str, Path]) -> None:
        self._detector = load_detector(weights["silero_vad"])

    def score(self, items: Sequence[OpenClip]) -> list[Outcome]:
        return [self._score(item) for item in items]

    def _score(self, item: OpenClip) -> Outcome:
        media = item.media
        if not len(media.speech):
            return NotApplicable("no audio")
        duration_s = len(media.speech) / SPEECH_RATE
        speech = speech_intervals(media, self._detector)
        sentences = join_intervals(speech, self.config.max_pause_s)
        speech_s = sum(_lengths(speech), 0.0)
        return Value(
            {
                "speech_intervals": [{"start_s": start, "end_s": end} for start, end in speech],
                "intervals": [{"start_s": start, "end_s": end} for start, end in sentences],
                "sentence_count": len(sentences),
                "speech_s": speech_s,
                "speech_ratio": speech_s / duration_s,
                "longest_gap_s": _longest_gap(sentences, duration_s),
                "longest_sentence_s": max(_lengths(sentences), default=0.0),
                "mean_probability": float(np.mean(speech_probabilities(media, self._detector))),
            }
        )


def _lengths(intervals: Sequence[Interval]) -> list[float]:
    return [end - start for start, end in intervals]


def _longest_gap(intervals: Sequence[Interval], duration_s: float) -> float:
    ends = [0.0, *(end for _, end in intervals)]
    starts = [*(start for start, _ in intervals), duration_s]
    return max(start - end for start, end in zip(starts, ends))
