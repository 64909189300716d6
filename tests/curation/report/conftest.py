from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from media.encode import write_video


@pytest.fixture(scope="session")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 4 s video whose picture changes with time, with a tone that fades in."""
    path = tmp_path_factory.mktemp("media") / "talker.mp4"
    rows, columns = np.mgrid[0:90, 0:160]
    frames = [np.stack([(columns + 2 * t) % 256, rows, np.full_like(rows, 2 * t)], -1) for t in range(100)]
    time = np.arange(4 * 16_000) / 16_000
    tone = 0.5 * np.sin(2 * np.pi * 220 * time) * time / 4
    write_video(path, np.array(frames, np.uint8), 25, audio=tone[None].astype(np.float32), audio_rate=16_000)
    return path
