from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from corpus.clip import Clip
from engine.stage import OpenClip
from media.clip import SPEECH_RATE, ClipMedia
from media.decode import decode_clip


def opened(media: ClipMedia) -> OpenClip:
    return OpenClip(Clip("k", "a.mp4", "c", 0, media.duration_s, 0, 0, 0, media.audio_rate), media)


def media_of(speech: np.ndarray) -> ClipMedia:
    """A clip whose only channel is ``speech`` at 16 kHz."""
    speech = speech.astype(np.float32)
    return ClipMedia(len(speech) / SPEECH_RATE, audio=speech[None], audio_rate=SPEECH_RATE, speech=speech)


@pytest.fixture(scope="session")
def interview(weights: Callable[..., dict[str, Path]]) -> np.ndarray:
    """8 s of a real statement, mono 16 kHz: speech with short pauses, no music."""
    path = weights("demo_interview")["demo_interview"]
    return decode_clip(str(path), 0, 8, needs=frozenset({"audio"})).speech
