"""What is heard: AudioSet classes over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import pyarrow as pa

from engine.stage import SERIES, NotApplicable, OpenClip, Outcome, Stage, StageConfig, Value, field
from media.clip import SPEECH_RATE, ClipMedia
from media.resample import resample
from perception.yamnet import HOP_S, Yamnet

# A group's score is that of its likeliest class. Names that a backend's list lacks are skipped.
GROUPS = {
    "speech": (
        "Speech",
        "Male speech, man speaking",
        "Female speech, woman speaking",
        "Child speech, kid speaking",
        "Conversation",
        "Narration, monologue",
    ),
    "singing": (
        "Singing",
        "Choir",
        "Male singing",
        "Female singing",
        "Child singing",
        "Synthetic singing",
        "Rapping",
        "Chant",
        "Yodeling",
        "Vocal music",
        "A capella",
    ),
    "music": ("Music",),
}


class Tagger(Protocol):
    """``classes`` in column order; a call maps mono audio at ``rate`` Hz to ``[patches, classes]`` in 0…1."""

    classes: list[str]
    rate: int

    def __call__(self, audio: np.ndarray) -> np.ndarray: ...


class EventsConfig(StageConfig):
    """Which tagger.

    Attributes:
        backend: ``yamnet`` (8-bit, one CPU core), ``panns`` (Cnn14, the paper's) or ``panns_inference`` (the same
            weights through the published package's network).
        device: torch device of the PANNs backends.
        others: how many classes outside the groups are named.
    """

    backend: Literal["yamnet", "panns", "panns_inference"] = "yamnet"
    device: str = "cpu"
    others: int = 5


def _group_fields() -> list[pa.Field]:
    fields = []
    for group, classes in GROUPS.items():
        kinds = "Music" if len(classes) == 1 else f"likeliest of {len(classes)} {group} classes"
        fields += [
            field(f"{group}_max", pa.float32(), f"AudioSet {kinds}: highest over time, 0 to 1"),
            field(f"{group}_mean", pa.float32(), f"AudioSet {kinds}: mean over time, 0 to 1"),
            field(f"{group}_median", pa.float32(), f"AudioSet {kinds}: median over time, 0 to 1"),
            field(f"{group}_over_time", SERIES, f"AudioSet {kinds}: 0.96 s patches, one every {HOP_S} s, 0 to 1"),
        ]
    return fields


class Events(Stage[OpenClip]):
    """Speech, singing, music and whatever else is heard."""

    name = "events"
    version = "1"
    Config = EventsConfig
    needs = frozenset({"audio"})
    values = pa.schema(
        [
            *_group_fields(),
            field("others", pa.list_(pa.string()), "Likeliest other AudioSet classes by highest score, descending"),
            field("others_max", SERIES, "Highest score over time of each of others, 0 to 1"),
        ]
    )

    def weights(self) -> tuple[str, ...]:
        return ("yamnet" if self.config.backend == "yamnet" else "panns_cnn14", "yamnet_classes")

    def setup(self, weights: Mapping[str, Path]) -> None:
        classes = weights["yamnet_classes"]
        self._tagger: Tagger
        if self.config.backend == "yamnet":
            self._tagger = Yamnet(weights["yamnet"], classes)
        else:
            from perception.cnn14 import Cnn14Tagger  # PyTorch, which the other backend's actors do without

            published = self.config.backend == "panns_inference"
            self._tagger = Cnn14Tagger(weights["panns_cnn14"], classes, published=published, device=self.config.device)
        index = {name: k for k, name in enumerate(self._tagger.classes)}
        self._groups = {group: [index[name] for name in names if name in index] for group, names in GROUPS.items()}
        grouped = {k for columns in self._groups.values() for k in columns}
        self._others = [k for k in range(len(index)) if k not in grouped]

    def score(self, items: Sequence[OpenClip]) -> list[Outcome]:
        return [self._score(item.media) for item in items]

    def _score(self, media: ClipMedia) -> Outcome:
        if not len(media.speech):
            return NotApplicable("no audio")
        scores = self._tagger(mono(media, self._tagger.rate))
        values: dict[str, object] = {}
        for group, columns in self._groups.items():
            series = scores[:, columns].max(axis=1)
            values[f"{group}_max"] = float(series.max())
            values[f"{group}_mean"] = float(series.mean())
            values[f"{group}_median"] = float(np.median(series))
            values[f"{group}_over_time"] = series.tolist()
        highest = scores.max(axis=0)
        named = sorted(self._others, key=lambda k: -highest[k])[: self.config.others]
        values["others"] = [self._tagger.classes[k] for k in named]
        values["others_max"] = highest[named].tolist()
        return Value(values)


def mono(media: ClipMedia, rate: int) -> np.ndarray:
    """float32 ``[n]``: the channels' mean at ``rate`` Hz."""
    if rate == SPEECH_RATE:
        return media.speech
    return resample(media.audio.mean(axis=0), media.audio_rate, rate)
