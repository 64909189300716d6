"""What a clip of the tiny world is: who is seen, whose voice it is, what is said, and when.

Captions name who, whose and what; when each word is said stands in the video and in the audio alone. Every draw is
a function of (seed, split, number).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np

from unitalking_data.permutation import hash64

SKINS = ("pale", "rosy", "golden", "olive", "brown")
HAIRS = ("black", "red", "blond", "grey", "blue")
WALLS = ("white", "green", "azure", "orange", "purple")
HEADS = ("round", "long")
WORDS = ("boo", "bow", "bur", "bah", "bay", "bee")
PITCHES = ("deep", "low", "high", "shrill")
TIMBRES = ("dark", "soft", "bright")
PITCH_HZ = (140.0, 250.0)

SECONDS = 1.7
REFERENCE_SECONDS = 2.0
TAKES = 3
HELD_OUT = {"val": 0.1, "test": 0.1}  # shares of the looks and of the sentences
SPLITS = ("train", *HELD_OUT)


@dataclass(frozen=True)
class Look:
    """An identity, by the names that a caption has for it."""

    skin: str
    hair: str
    wall: str
    head: str

    @property
    def name(self) -> str:
        return f"{self.skin}-{self.hair}-{self.wall}-{self.head}"


@dataclass(frozen=True)
class Voice:
    """
    Attributes:
        pitch: 0…1, from the lowest to the highest of ``PITCH_HZ`` in octaves.
        timbre: 0…1, from a dark to a bright voice.
    """

    pitch: float
    timbre: float

    @property
    def hz(self) -> float:
        low, high = PITCH_HZ
        return low * (high / low) ** self.pitch

    @property
    def words(self) -> tuple[str, str]:
        """What a caption calls it: fourths of the range of pitch, thirds of that of timbre."""
        return PITCHES[int(self.pitch * len(PITCHES))], TIMBRES[int(self.timbre * len(TIMBRES))]


@dataclass(frozen=True)
class Syllable:
    """A word in time: a sin² bump of loudness from ``start_s`` on."""

    word: str
    start_s: float
    seconds: float
    loudness: float

    def at(self, times: np.ndarray) -> np.ndarray:
        """Loudness 0…1 at ``times`` (any shape), seconds of the clip."""
        phases = (times - self.start_s) / self.seconds
        return np.where((phases > 0) & (phases < 1), self.loudness * np.sin(np.pi * phases) ** 2, 0.0)


@dataclass(frozen=True)
class Utterance:
    """What is said, in ``seconds``."""

    syllables: tuple[Syllable, ...]
    seconds: float

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(syllable.word for syllable in self.syllables)

    def loudness(self, times: np.ndarray) -> np.ndarray:
        """0…1 at ``times`` (any shape), seconds: what opens the mouth and what the audio's envelope is."""
        return self.each(times).sum(0)

    def each(self, times: np.ndarray) -> np.ndarray:
        """The same syllable by syllable, (syllables, *times); they do not overlap."""
        return np.stack([syllable.at(times) for syllable in self.syllables])


@dataclass(frozen=True)
class WorldClip:
    """The truth of a clip.

    Attributes:
        references: other words in the same voice, one a take.
    """

    key: str
    split: str
    look: Look
    voice: Voice
    speech: Utterance
    references: tuple[Utterance, ...]

    @property
    def transcript(self) -> str:
        return " ".join(self.speech.words)


def make_clip(seed: int, split: str, number: int) -> WorldClip:
    """The ``number``-th clip of a split of the world of ``seed``.

    No look and no sentence is in two splits.
    """
    rng = np.random.default_rng([hash64("tiny world", seed, split, number)])
    look = _draw(rng, _looks(split))
    sentence = _draw(rng, _sentences(int(rng.integers(2, 5)), split))
    voice = Voice(*rng.random(2).tolist())
    speech = _timed(rng, sentence, SECONDS)
    references = tuple(_timed(rng, _draw(rng, _sentences(4, "train")), REFERENCE_SECONDS) for _ in range(TAKES))
    key = f"{hash64('tiny world key', seed, split, number):016x}"
    return WorldClip(key, split, look, voice, speech, references)


def _timed(rng: np.random.Generator, words: Sequence[str], seconds: float) -> Utterance:
    """Words in order; the time that they leave is shared out at random before, between and after them."""
    lengths = rng.uniform(0.24, 0.40, len(words))
    gaps = rng.exponential(size=len(words) + 1)
    gaps *= (seconds - lengths.sum()) / gaps.sum()
    starts = np.cumsum(gaps)[:-1] + np.concatenate(([0.0], np.cumsum(lengths)[:-1]))
    loudness = rng.uniform(0.6, 1.0, len(words))
    return Utterance(
        tuple(Syllable(*row) for row in zip(words, starts.tolist(), lengths.tolist(), loudness.tolist(), strict=True)),
        seconds,
    )


def _draw(rng: np.random.Generator, choices: Sequence) -> object:
    return choices[int(rng.integers(len(choices)))]


@cache
def _looks(split: str) -> list[Look]:
    every = [Look(*names) for names in product(SKINS, HAIRS, WALLS, HEADS)]
    return [look for look in every if _split_of(look.name) == split]


@cache
def _sentences(length: int, split: str) -> list[tuple[str, ...]]:
    every = product(WORDS, repeat=length)
    return [words for words in every if _split_of(" ".join(words)) == split]


def _split_of(name: str) -> str:
    place = hash64("tiny world split", name) / 2**64
    for split, share in HELD_OUT.items():
        place -= share
        if place < 0:
            return split
    return "train"
