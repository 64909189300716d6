"""Text to speech with Kokoro-82M (8-bit ONNX), pronunciations looked up in a dictionary."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from kit.errors import UserError
from perception.onnx import open_model

RATE = 24_000
WEIGHTS = ("kokoro", "kokoro_voices", "kokoro_vocab", "english_lexicon")
MAX_TOKENS = 509

# The dictionary gives function words their citation form; running speech has the reduced one.
_WEAK = {"a": "ɐ", "the": "ðə", "to": "tə", "of": "əv", "and": "ənd", "an": "ən"}
_BEFORE_VOWEL = {"the": "ði", "to": "tʊ"}
_VOWELS = frozenset("aɑæɐəɛɜeiɪoɔuʊʌAIOQWYɚᵻ")
_PAUSES = frozenset(",.!?;:—…")


class SpeechError(UserError):
    """A text that cannot be spoken: an unknown word, or too long."""


class Speech:
    """Kokoro text to speech (hexgrad/Kokoro-82M, ONNX inputs ``tokens``, ``style``, ``speed``)."""

    def __init__(self, weights: Mapping[str, Path]) -> None:
        """``weights`` maps each of :data:`WEIGHTS` to its file."""
        self._session = open_model(weights["kokoro"])
        with np.load(weights["kokoro_voices"]) as voices:
            self._voices = {name: voices[name] for name in voices.files}
        self._tokens: dict[str, int] = json.loads(weights["kokoro_vocab"].read_text("utf-8"))["vocab"]
        self._words: dict[str, str | dict[str, str]] = json.loads(weights["english_lexicon"].read_text("utf-8"))

    @property
    def voices(self) -> tuple[str, ...]:
        return tuple(self._voices)

    def phonemes(self, text: str) -> str:
        """``text`` in Kokoro's American English phonemes, word by word.

        Raises:
            SpeechError: naming each word that the dictionary does not have.
        """
        pieces = re.findall(r"[A-Za-z']+|[^\sA-Za-z']", text)
        spoken = [piece if piece in _PAUSES else self._word(piece) for piece in pieces]
        unknown = [piece for piece, symbols in zip(pieces, spoken) if symbols is None]
        if unknown:
            names = ", ".join(map(repr, unknown))
            raise SpeechError(f"no pronunciation for {names}: use words that the dictionary has")
        for position, piece in enumerate(pieces):
            following = spoken[position + 1 : position + 2]
            if piece.lower() in _BEFORE_VOWEL and following and following[0].lstrip("ˈˌ")[:1] in _VOWELS:
                spoken[position] = _BEFORE_VOWEL[piece.lower()]
        sentence = ""
        for piece, symbols in zip(pieces, spoken):
            sentence += symbols if piece in _PAUSES or not sentence else f" {symbols}"
        return sentence

    def say(self, text: str, voice: str, speed: float = 1.0) -> np.ndarray:
        """Speak ``text``: float32 ``[n]`` in −1…1, mono at :data:`RATE`.

        Args:
            speed: 1 is the voice's own rate, 1.2 a fifth faster.

        Raises:
            SpeechError: unknown word or voice, or more than :data:`MAX_TOKENS` phonemes.
        """
        if voice not in self._voices:
            raise SpeechError(f"no voice {voice!r}; there are {', '.join(self._voices)}")
        phonemes = self.phonemes(text)
        tokens = [self._tokens[symbol] for symbol in phonemes if symbol in self._tokens]
        if len(tokens) > MAX_TOKENS:
            raise SpeechError(f"{len(tokens)} phonemes, at most {MAX_TOKENS} at once: split the text")
        feeds = {
            "tokens": np.array([[0, *tokens, 0]], np.int64),
            "style": self._voices[voice][len(tokens)],
            "speed": np.array([speed], np.float32),
        }
        return self._session.run(None, feeds)[0].reshape(-1).astype(np.float32)

    def _word(self, word: str) -> str | None:
        if reduced := _WEAK.get(word.lower()):
            return reduced
        symbols = self._words.get(word, self._words.get(word.lower()))
        return symbols["DEFAULT"] if isinstance(symbols, dict) else symbols
