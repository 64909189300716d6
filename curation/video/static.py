"""Does the picture move: frozen pictures, slide shows, pans over a photograph, stills with something moving on top."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from curation.video.motion import FLOOR, Comparer
from engine.stage import INTERVALS, SERIES, NotApplicable, OpenClip, Outcome, Stage, Value, field
from media.clip import GRID_FPS, ClipMedia

SIDE = 160
STEP = 5  # ticks of the 25 fps grid between two pictures
_STEP_S = STEP / GRID_FPS
_MIN_PIXELS = 4  # at 160 px; fewer that change are not a movement
_MIN_SLIDE_S = 0.6
_HOME = 3.0  # grey levels
_OFTEN = 0.1  # a place moves when it changes in this share of the steps


class Static(Stage[OpenClip]):
    """Motion by differences of 160 px grey pictures, five a second, with codec noise and global motion taken away.

    Differences rather than flow decide what changes: they see appearances and cuts, which have no flow, and cost
    about a tenth of a millisecond. Flow is computed only where the texture changes all over, to tell a pan over a
    photograph (one affine motion of the whole explains the change) from a picture that lives. A talking head on a
    tripod is frozen around a small area that changes at nearly every step and hardly ever comes back to the same
    picture; a logo, credits or a sound wave over a still come back to it all the time (``home_share``), and a ticker
    has its motion at the picture's edge (``motion_y``).
    """

    name = "static"
    version = "2"
    needs = frozenset({"frames"})
    values = pa.schema(
        [
            field(
                "frozen_share", pa.float32(), "Share of the time in which nothing changes beyond codec noise, 0 to 1"
            ),
            field(
                "still_share",
                pa.float32(),
                "Share of the time in which nothing changes but by one motion of the whole picture (pan, zoom), 0 to 1",
            ),
            field("longest_frozen_s", pa.float32(), "Longest time in which nothing changes, seconds"),
            field("slides", pa.int32(), "Number of different still pictures, each shown or panned over 0.6 s or more"),
            field(
                "moving_area", pa.float32(), "Share of the area that moves on its own in a tenth of the time, 0 to 1"
            ),
            field("ever_moving_area", pa.float32(), "Share of the area that ever moves on its own, 0 to 1"),
            field("residual_area", pa.float32(), "Share of the area that moves on its own, mean over the clip, 0 to 1"),
            field("motion_energy", pa.float32(), "Mean change of what changes within 0.2 s, grey levels 0 to 255"),
            field(
                "home_share",
                pa.float32(),
                "Share of the time in which the places that move are at their usual luminance, 0 to 1: high where"
                " something passes over a still picture and uncovers it again",
            ),
            field("motion_x", pa.float32(), "Centre of the motion, 0 left edge to 1 right edge"),
            field("motion_y", pa.float32(), "Centre of the motion, 0 top to 1 bottom"),
            field(
                "motion_spread",
                pa.float32(),
                "Spread of the motion: standard deviation of its places over that of the whole picture, 0 to about 1.7",
            ),
            field("global_motion", pa.float32(), "Mean motion of the whole picture, picture widths a second"),
            field("frozen", INTERVALS, "When nothing changes, seconds from the clip's start"),
            field("activity", SERIES, "Share of the area that moves on its own, one value every 0.2 s, 0 to 1"),
        ]
    )

    def score(self, items: Sequence[OpenClip]) -> list[Outcome]:
        return [_measure(item.media) for item in items]


def small_grey(media: ClipMedia) -> list[np.ndarray]:
    """Every fifth picture of the 25 fps grid, uint8 grey ``[h, w]`` with a long side of at most 160."""
    return media.derive("small_grey", _small_grey)


def _small_grey(media: ClipMedia) -> list[np.ndarray]:
    width, height = media.planes.size
    scale = min(1.0, SIDE / max(height, width, 1))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return [media.planes.grey(tick, size) for tick in range(0, len(media.planes), STEP)]


def _measure(media: ClipMedia) -> Outcome:
    pictures = small_grey(media)
    if len(pictures) < 2:
        return NotApplicable(f"shorter than {_STEP_S:g} s: motion needs two pictures")
    comparer = Comparer()
    changes = [comparer.compare(before, after) for before, after in itertools.pairwise(pictures)]
    frozen = np.array([change.changed.sum() < _MIN_PIXELS for change in changes])
    still = frozen | np.array([change.residual.sum() < _MIN_PIXELS for change in changes])
    residual = np.stack([change.residual for change in changes])
    often = residual.mean(axis=0)
    runs = _runs(frozen)
    return Value(
        {
            "frozen_share": float(frozen.mean()),
            "still_share": float(still.mean()),
            "longest_frozen_s": max((end - start for start, end in runs), default=0) * _STEP_S,
            "slides": _slides(pictures, still),
            "moving_area": float((often >= _OFTEN).mean()),
            "ever_moving_area": float((often > 0).mean()),
            "residual_area": float(often.mean()),
            "motion_energy": float(np.mean([change.energy for change in changes])),
            "home_share": _home(pictures, often >= _OFTEN),
            **_place(often),
            "global_motion": float(np.mean([change.shift for change in changes])) / pictures[0].shape[1] / _STEP_S,
            "frozen": [{"start_s": start * _STEP_S, "end_s": end * _STEP_S} for start, end in runs],
            "activity": residual.mean(axis=(1, 2)).astype(np.float32).tolist(),
        }
    )


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """First and one past the last index of each run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def _slides(pictures: list[np.ndarray], still: np.ndarray) -> int:
    slides: list[np.ndarray] = []
    for start, end in _runs(still):
        if (end - start) * _STEP_S < _MIN_SLIDE_S:
            continue
        first = pictures[start].astype(np.int16)
        if all(np.abs(first - slide).mean() > FLOOR for slide in slides):
            slides.append(pictures[end].astype(np.int16))
    return len(slides)


def _home(pictures: list[np.ndarray], moving: np.ndarray) -> float | None:
    """Mean over the places that move of the share of time spent within 3 grey levels of their median."""
    if not moving.any():
        return None
    places = np.stack([picture[moving] for picture in pictures]).astype(np.float32)
    return float((np.abs(places - np.median(places, axis=0)) <= _HOME).mean())


def _place(often: np.ndarray) -> dict[str, float | None]:
    """Centre and spread of a density over the picture; None where there is no motion."""
    total = often.sum()
    if total == 0:
        return {"motion_x": None, "motion_y": None, "motion_spread": None}
    height, width = often.shape
    x, y = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
    across, down = often.sum(axis=0) / total, often.sum(axis=1) / total
    centre_x, centre_y = float(across @ x), float(down @ y)
    variance = float(across @ (x - centre_x) ** 2 + down @ (y - centre_y) ** 2)
    # Places spread evenly over the unit square have a variance of 1/12 along each side.
    return {"motion_x": centre_x, "motion_y": centre_y, "motion_spread": float(np.sqrt(variance * 6))}
