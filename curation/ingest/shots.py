"""Where shots begin and end, from every frame of a video at 48 x 27 pixels.

Two detectors. ``transnetv2`` is the network, which also finds dissolves and fades and spares fast motion; since
it costs 0.03 s a frame on one core, it runs only over the windows in which the frames change enough for a
transition. ``content`` is the change itself: a peak between two frames that stands out from its neighbours and
lasts, after the adaptive content detector of PySceneDetect; it finds hard cuts alone.

Changes are those of :mod:`perception.frame_change`, 0 to 255.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from engine.stage import StageConfig
from perception.frame_change import frame_changes
from perception.intervals import runs
from perception.transnet import WINDOW, TransNetV2

MARGIN = WINDOW // 4  # frames of context on either side of what a window decides
STEP = WINDOW - 2 * MARGIN
BLOCK = 10 * STEP  # frames scored at a time, which bounds the memory of a long video


class ShotConfig(StageConfig):
    """Settings of the shot detector.

    Attributes:
        backend: ``transnetv2`` or ``content``, see the module.
        threshold: probability from which the network's answer is a transition, its publisher's default.
        cut_change, cut_ratio: ``content`` cuts where the frame changes by at least this much and by at least
            this many times what it changes around. Hard cuts between talking heads change it by 9 to 60 and
            7 to 60 times, a talking head by less than 8.
        screen_change, screen_slow: the network runs where the frame changes by at least ``screen_change``, as
            a peak of ``cut_ratio``, or by ``screen_slow`` within half a second; 0 runs it everywhere.
    """

    backend: Literal["transnetv2", "content"] = "transnetv2"
    threshold: float = Field(0.5, gt=0, lt=1)
    cut_change: float = Field(8.0, ge=0)
    cut_ratio: float = Field(3.0, ge=1)
    screen_change: float = Field(3.0, ge=0)
    screen_slow: float = Field(12.0, ge=0)


# Scores one block, uint8 ``[MARGIN + n + MARGIN, 27, 48, 3]``, to probabilities ``[n, 2]``: that the transition to the
# next shot is centred on the frame (hard cut: the last frame of its shot), and that the frame is part of one.
ShotDetector = Callable[[np.ndarray], np.ndarray]


class ContentDetector:
    """Hard cuts where the change is a peak that lasts; the answers are 0 or 1."""

    def __init__(self, config: ShotConfig) -> None:
        self._config = config

    def __call__(self, block: np.ndarray) -> np.ndarray:
        found = frame_changes(block, MARGIN)
        peak = (found.fast >= self._config.cut_change) & (found.ratio >= self._config.cut_ratio)
        lasting = found.lasting >= self._config.cut_change / 2
        return np.repeat((peak & lasting)[:, None], 2, axis=1).astype(np.float32)


class TransNetDetector:
    """The network over those windows of ``STEP`` frames in which something may have changed.

    Attributes:
        windows, skipped: how many windows there were, and how many the network did not need to see.
    """

    def __init__(self, network: TransNetV2, config: ShotConfig) -> None:
        self._network = network
        self._config = config
        self.windows = self.skipped = 0

    @torch.inference_mode()
    def __call__(self, block: np.ndarray) -> np.ndarray:
        count = len(block) - 2 * MARGIN
        config, found = self._config, frame_changes(block, MARGIN)
        peak = (found.fast >= config.screen_change) & (found.ratio >= config.cut_ratio)
        candidate = peak | (found.slow >= config.screen_slow)
        result = np.zeros((count, 2), np.float32)
        for start in range(0, count, STEP):
            self.windows += 1
            if config.screen_change > 0 and not candidate[start : start + STEP].any():
                self.skipped += 1
                continue
            window = block[start : start + WINDOW]
            missing = WINDOW - len(window)
            if missing:
                window = np.concatenate([window, np.repeat(window[-1:], missing, axis=0)])
            scores = self._network(torch.from_numpy(window[None]))[0, MARGIN:-MARGIN].numpy()
            result[start : start + STEP] = scores[: count - start]
        return result


def find_shots(
    frames: Iterable[tuple[float, np.ndarray]], detector: ShotDetector, threshold: float, duration_s: float
) -> list[dict[str, float]]:
    """Shots as ``{"start_s", "end_s"}`` in seconds, in order and disjoint.

    A hard cut ends one shot where the next begins; the frames of a slow transition belong to neither.

    Args:
        frames: presentation time in seconds and uint8 RGB ``[27, 48, 3]`` of every frame in order.
        duration_s: where the last shot ends, unless decoding broke off well before.
    """
    times: list[float] = []
    scores = [np.zeros((0, 2), np.float32)]

    def timed_frames() -> Iterator[np.ndarray]:
        for time_s, frame in frames:
            times.append(time_s)
            yield frame

    for block in blocks(timed_frames()):
        scores.append(detector(block))
    if not times:
        return []
    largest_gap = max(np.diff(times), default=0.0)
    broke_off = duration_s - times[-1] > max(1.0, 2 * largest_gap)
    bounds = [0.0, *times[1:], times[-1] if broke_off else max(duration_s, times[-1])]
    starts, ends = shot_bounds(np.concatenate(scores), threshold)
    shots = [{"start_s": bounds[first], "end_s": bounds[last + 1]} for first, last in zip(starts, ends, strict=True)]
    return [shot for shot in shots if shot["end_s"] > shot["start_s"]]


def blocks(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Overlapping blocks of at most ``BLOCK`` frames with ``MARGIN`` frames of context on either side, at the
    video's ends repetitions of its first and last frame."""
    held: list[np.ndarray] = []
    for frame in frames:
        if not held:
            held = [frame] * MARGIN
        held.append(frame)
        if len(held) == MARGIN + BLOCK + MARGIN:
            yield np.stack(held)
            held = held[BLOCK:]
    if len(held) > MARGIN:
        yield np.stack(held + held[-1:] * MARGIN)


def shot_bounds(scores: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """First and last frames of the shots from scores ``[n, 2]``, see :data:`ShotDetector`.

    A transition is a run of frames above the threshold in the first column, widened to the run in the second
    that it lies in. The first frame of a transition still belongs to the shot before, as in the publisher's
    own reading.
    """
    count = len(scores)
    if not count:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    centre = scores[:, 0] > threshold
    either = centre | (scores[:, 1] > threshold)
    transitions = [(first, stop) for first, stop in runs(either) if centre[first:stop].any()]
    starts = np.array([0, *(stop for _, stop in transitions)])
    ends = np.array([*(first for first, _ in transitions), count - 1])
    whole = starts <= ends
    return starts[whole], ends[whole]
