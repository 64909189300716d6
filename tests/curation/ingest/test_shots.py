"""Cuts are found where they are, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from curation.ingest.shots import (
    BLOCK,
    MARGIN,
    STEP,
    ContentDetector,
    ShotConfig,
    ShotDetector,
    TransNetDetector,
    blocks,
    find_shots,
    shot_bounds,
)
from perception.transnet import TransNetV2, load_transnet
from tests.media.scenes import dissolve, small, talking_head

FPS = 25.0


@pytest.fixture(scope="module")
def network(weights: Callable[..., dict[str, Path]]) -> TransNetV2:
    torch.set_num_threads(1)
    return load_transnet(weights("transnetv2")["transnetv2"])


@pytest.fixture(params=["transnetv2", "content"])
def detector(request: pytest.FixtureRequest, network: TransNetV2) -> ShotDetector:
    config = ShotConfig(backend=request.param)
    return TransNetDetector(network, config) if request.param == "transnetv2" else ContentDetector(config)


def shots_of(frames: list[np.ndarray], detector: ShotDetector, fps: float = FPS) -> list[tuple[float, float]]:
    timed = ((index / fps, frame) for index, frame in enumerate(small(frames)))
    shots = find_shots(timed, detector, 0.5, len(frames) / fps)
    return [(round(shot["start_s"], 6), round(shot["end_s"], 6)) for shot in shots]


def cut_frames(shots: Iterable[tuple[float, float]], fps: float = FPS) -> list[float]:
    return [start * fps for start, _ in list(shots)[1:]]


@pytest.mark.parametrize("at", [[40], [48, 49 + STEP]])
def test_a_cut_is_found_within_two_frames(detector: ShotDetector, at: list[int]) -> None:
    bounds = [0, *at, 130]
    frames = [f for seed, (a, b) in enumerate(pairwise(bounds)) for f in talking_head(seed, b - a)]
    shots = shots_of(frames, detector)
    assert cut_frames(shots) == pytest.approx(at, abs=2)
    assert shots[0][0] == 0 and shots[-1][1] == len(frames) / FPS


def test_a_talking_head_is_one_shot(detector: ShotDetector) -> None:
    assert shots_of(talking_head(3, 120), detector) == [(0, 4.8)]


def test_a_still_video_is_one_shot(detector: ShotDetector) -> None:
    assert shots_of(talking_head(3, 1) * 60, detector) == [(0, 2.4)]


def test_a_cut_beyond_the_first_block(network: TransNetV2) -> None:
    detector = TransNetDetector(network, ShotConfig())
    frames = talking_head(1, BLOCK + 20) + talking_head(2, 60)
    assert cut_frames(shots_of(frames, detector)) == pytest.approx([BLOCK + 20], abs=2)
    assert detector.windows == 12 and detector.skipped >= 9, "the network ran where nothing changed"


def test_the_network_finds_a_dissolve_and_leaves_its_frames_out(network: TransNetV2) -> None:
    frames = dissolve(talking_head(5, 60), talking_head(6, 60), 16)
    detector = TransNetDetector(network, ShotConfig())
    (_, end), (start, _) = shots_of(frames, detector)
    assert 40 <= end * FPS <= 52 <= start * FPS <= 64


def test_a_flash_is_no_cut_of_content() -> None:
    frames = talking_head(4, 80)
    frames[40] = np.minimum(frames[40].astype(int) + 120, 255).astype(np.uint8)
    assert len(shots_of(frames, ContentDetector(ShotConfig()))) == 1


def test_screening_changes_no_answer_where_something_happens(network: TransNetV2) -> None:
    frames = np.stack(small(talking_head(1, 65) + talking_head(2, 35)))
    (block,) = blocks(frames)
    screened = TransNetDetector(network, ShotConfig())(block)
    everywhere = TransNetDetector(network, ShotConfig(screen_change=0))(block)
    np.testing.assert_array_equal(screened[STEP : 2 * STEP], everywhere[STEP : 2 * STEP])
    assert everywhere[:STEP].max() < 0.5


def test_times_are_the_frames_own() -> None:
    """Frames at uneven distances: the cut is where the second scene's first frame is shown."""
    frames = small(talking_head(1, 50) + talking_head(2, 50))
    gaps = np.where(np.arange(100) % 3 == 0, 0.1, 0.02)
    times = np.cumsum(gaps) - gaps[0]
    detector = ContentDetector(ShotConfig())
    shots = find_shots(zip(times, frames, strict=True), detector, 0.5, times[-1] + 0.02)
    assert [shot["start_s"] for shot in shots] == [0, pytest.approx(times[50])]
    assert shots[0]["end_s"] == pytest.approx(times[50])


@pytest.mark.parametrize("count", [1, 2, 7])
def test_very_short_sources(detector: ShotDetector, count: int) -> None:
    assert shots_of(talking_head(1, count), detector) == [(0, count / FPS)]


def test_no_frame_is_no_shot(detector: ShotDetector) -> None:
    assert shots_of([], detector) == []


def test_the_last_shot_ends_where_decoding_broke_off() -> None:
    timed = [(index / FPS, frame) for index, frame in enumerate(small(talking_head(1, 50)))]
    (shot,) = find_shots(timed, ContentDetector(ShotConfig()), 0.5, 10.0)
    assert shot == {"start_s": 0.0, "end_s": 49 / FPS}


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2 * BLOCK + 3))
def test_blocks_cover_every_frame_once_with_its_surroundings(count: int) -> None:
    frames = [np.full((1, 1, 3), index, np.int32) for index in range(count)]
    padded = np.clip(np.arange(-MARGIN, count + MARGIN), 0, max(count - 1, 0))
    seen = 0
    for block in blocks(iter(frames)):
        length = len(block) - 2 * MARGIN
        assert 0 < length <= BLOCK + MARGIN
        np.testing.assert_array_equal(block[:, 0, 0, 0], padded[seen : seen + len(block)])
        seen += length
    assert seen == count


@settings(deadline=None)
@given(arrays(np.float32, st.tuples(st.integers(0, 40), st.just(2)), elements=st.sampled_from([0.0, 0.4, 0.6, 1.0])))
def test_shots_are_disjoint_and_lose_only_transitions(scores: np.ndarray) -> None:
    starts, ends = shot_bounds(scores, 0.5)
    assert (starts <= ends).all() and (ends[:-1] < starts[1:]).all()
    inside = np.zeros(len(scores), bool)
    for first, last in zip(starts, ends, strict=True):
        inside[first : last + 1] = True
        assert not (scores[first:last, 0] > 0.5).any(), "a cut within a shot"
    assert ((scores > 0.5).any(axis=1) | inside).all()
