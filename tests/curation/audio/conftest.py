from __future__ import annotations

import numpy as np

from engine.items import Clip
from engine.stage import OpenClip
from media.clip import SPEECH_RATE, ClipMedia


def opened(media: ClipMedia) -> OpenClip:
    return OpenClip(Clip("k", "a.mp4", "c", 0, media.duration_s, 0, 0, 0, media.audio_rate), media)


def media_of(speech: np.ndarray) -> ClipMedia:
    """A clip whose only channel is ``speech`` at 16 kHz."""
    speech = speech.astype(np.float32)
    return ClipMedia(len(speech) / SPEECH_RATE, audio=speech[None], audio_rate=SPEECH_RATE, speech=speech)
