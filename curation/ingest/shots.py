"""Where shots begin and end, from 48 x 27 pictures of every frame.

Two detectors. ``transnetv2`` is the network, which also finds dissolves and fades and spares fast motion; since
it costs 0.03 s a frame on one core, it runs only over the windows in which the picture changes enough for a
transition. ``content`` is the change itself: a peak between two frames that stands out from its neighbours, after
the adaptive content detector of PySceneDetect; it finds hard cuts alone.

Changes are mean absolute differences of 8-bit luma and chroma over the small picture, 0 to 255.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple

import cv2
import numpy as np
import torch
from pydantic import Field

from curation.ingest.transnet import WIDTH, WINDOW, TransNetV2
from engine.stage import StageConfig

MARGIN = WINDOW // 4  # frames of context on either side of what a window decides
STEP = WINDOW - 2 * MARGIN
BLOCK = 10 * STEP  # frames scored at a time, which bounds the memory of a long video
SLOW_LAG = 12  # frames over which a dissolve or a fade shows
NEIGHBOURS = 4  # frames on either side that a peak is compared with
FLOOR = 0.3  # of the neighbours' change, so that noise in a still picture is no peak


class ShotConfig(StageConfig):
    """Settings of the shot detector.

    Attributes:
        backend: ``transnetv2`` or ``content``, see the module.
        threshold: probability from which the network's answer is a transition, its publisher's default.
        cut_change, cut_ratio: ``content`` cuts where the picture changes by at least this much and by at least
            this many times what it changes around. Hard cuts between talking heads change it by 9 to 60 and
            7 to 60 times, a talking head by less than 8.
        screen_change, screen_slow: the network runs where the picture changes by at least ``screen_change``, as
            a peak of ``cut_ratio``, or by ``screen_slow`` within half a second; 0 runs it everywhere.
    """

    backend: Literal["transnetv2", "content"] = "transnetv2"
    threshold: float = Field(0.5, gt=0, lt=1)
    cut_change: float = Field(8.0, ge=0)
    cut_ratio: float = Field(3.0, ge=1)
    screen_change: float = Field(3.0, ge=0)
    screen_slow: float = Field(12.0, ge=0)


class Changes(NamedTuple):
    """Per frame of a block: change to the next frame, that as a multiple of its surroundings, change over
    ``SLOW_LAG`` frames around it, and whether the picture stays changed (a flash does not)."""

    fast: np.ndarray
    ratio: np.ndarray
    slow: np.ndarray
    lasting: np.ndarray


# Scores one block, uint8 ``[MARGIN + n + MARGIN, 27, 48, 3]``, to probabilities ``[n, 2]``: that the transition to the
# next shot is centred on the frame (hard cut: the last frame of its shot), and that the frame is part of one.
Detector = Callable[[np.ndarray], np.ndarray]


def changes(block: np.ndarray) -> Changes:
    """Of the central frames of a block of RGB frames ``[MARGIN + n + MARGIN, 27, 48, 3]``; float ``[n]`` each."""
    small = cv2.cvtColor(block.reshape(-1, WIDTH, 3), cv2.COLOR_RGB2YCrCb).reshape(block.shape).astype(np.int16)

    def between(lag_back: int, lag_on: int) -> np.ndarray:
        before, after = small[MARGIN - lag_back :], small[MARGIN + lag_on :]
        count = len(block) - 2 * MARGIN
        return np.abs(after[:count] - before[:count]).mean((1, 2, 3))

    around = np.stack([between(-lag, lag + 1) for lag in range(-NEIGHBOURS, NEIGHBOURS + 1) if lag])
    fast = between(0, 1)
    half = SLOW_LAG // 2
    return Changes(fast, fast / (np.median(around, axis=0) + FLOOR), between(half, half), between(2, 3))


class ContentDetector:
    """Hard cuts where the change is a peak that lasts; the answers are 0 or 1."""

    def __init__(self, config: ShotConfig) -> None:
        self._config = config

    def __call__(self, block: np.ndarray) -> np.ndarray:
        found = changes(block)
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
        config, found = self._config, changes(block)
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
    frames: Iterable[tuple[float, np.ndarray]], detector: Detector, threshold: float, duration_s: float
) -> list[dict[str, float]]:
    """Shots as ``{"start_s", "end_s"}`` in seconds, in order and disjoint.

    A hard cut ends one shot where the next begins; the frames of a slow transition belong to neither.

    Args:
        frames: presentation time in seconds and uint8 RGB ``[27, 48, 3]`` of every frame in order.
        duration_s: where the last shot ends, unless decoding broke off well before.
    """
    times: list[float] = []
    scores = [np.zeros((0, 2), np.float32)]

    def pictures() -> Iterator[np.ndarray]:
        for time_s, picture in frames:
            times.append(time_s)
            yield picture

    for block in blocks(pictures()):
        scores.append(detector(block))
    if not times:
        return []
    largest_gap = max(np.diff(times), default=0.0)
    broke_off = duration_s - times[-1] > max(1.0, 2 * largest_gap)
    bounds = [0.0, *times[1:], times[-1] if broke_off else max(duration_s, times[-1])]
    starts, ends = shot_bounds(np.concatenate(scores), threshold)
    shots = [{"start_s": bounds[first], "end_s": bounds[last + 1]} for first, last in zip(starts, ends, strict=True)]
    return [shot for shot in shots if shot["end_s"] > shot["start_s"]]


def blocks(pictures: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Overlapping blocks of at most ``BLOCK`` frames with ``MARGIN`` frames of context on either side, at the
    video's ends repetitions of its first and last frame."""
    held: list[np.ndarray] = []
    for picture in pictures:
        if not held:
            held = [picture] * MARGIN
        held.append(picture)
        if len(held) == MARGIN + BLOCK + MARGIN:
            yield np.stack(held)
            held = held[BLOCK:]
    if len(held) > MARGIN:
        yield np.stack(held + held[-1:] * MARGIN)


def shot_bounds(scores: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """First and last frames of the shots from scores ``[n, 2]``, see :data:`Detector`.

    A transition is a run of frames above the threshold in the first column, widened to the run in the second
    that it lies in. The first frame of a transition still belongs to the shot before, as in the publisher's
    own reading.
    """
    count = len(scores)
    if not count:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    centre = scores[:, 0] > threshold
    either = centre | (scores[:, 1] > threshold)
    edges = np.diff(np.concatenate([[0], either, [0]]).astype(np.int8))
    first, last = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1
    transition = [bool(centre[a : b + 1].any()) for a, b in zip(first, last, strict=True)]
    first, last = first[transition], last[transition]
    starts, ends = np.concatenate([[0], last + 1]), np.concatenate([first, [count - 1]])
    whole = starts <= ends
    return starts[whole], ends[whole]
