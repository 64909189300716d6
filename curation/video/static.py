"""Whether a clip moves: frozen frames, slide shows, pans over a photograph, stills with something moving on top."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from engine.stage import INTERVALS, SERIES, NotApplicable, OpenClip, Outcome, Stage, Value, field
from media.clip import GRID_FPS, ClipMedia
from perception.intervals import runs
from perception.motion import FLOOR, Comparer, home_share, spread

SIDE = 160
STEP = 5  # frames of the 25 fps grid from one that is compared to the next
_STEP_S = STEP / GRID_FPS
_MIN_PIXELS = 4  # at 160 px; fewer that change are not a movement
_MIN_SLIDE_S = 0.6
_HOME = 3.0  # grey levels within which a place is at its usual luminance
_OFTEN = 0.1  # a place moves when it changes in this share of the steps


class Static(Stage[OpenClip]):
    """Motion by differences of 160 px grey frames, five a second, with codec noise and global motion taken away.

    Differences rather than flow decide what changes: they see appearances and cuts, which have no flow, and cost
    about a tenth of a millisecond. Flow is computed only where the texture changes all over, to tell a pan over a
    photograph (one affine motion of the whole explains the change) from a scene that lives. A talking head on a
    tripod is frozen around a small area that changes at nearly every step and hardly ever looks the same again; a
    logo, credits or a waveform over a still show the still again all the time (``home_share``), and a ticker has its
    motion at the frame's edge (``motion_y``).
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


def _small_grey(media: ClipMedia) -> list[np.ndarray]:
    """Every fifth frame of the 25 fps grid, uint8 grey ``[h, w]`` with a long side of at most 160."""
    width, height = media.planes.size
    scale = min(1.0, SIDE / max(height, width, 1))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return [media.planes.grey(tick, size) for tick in range(0, len(media.planes), STEP)]


def _measure(media: ClipMedia) -> Outcome:
    frames = _small_grey(media)
    if len(frames) < 2:
        return NotApplicable(f"shorter than {_STEP_S:g} s: motion needs two pictures")
    comparer = Comparer()
    changes = [comparer.compare(before, after) for before, after in itertools.pairwise(frames)]
    frozen = np.array([change.changed.sum() < _MIN_PIXELS for change in changes])
    still = frozen | np.array([change.residual.sum() < _MIN_PIXELS for change in changes])
    residual = np.stack([change.residual for change in changes])
    often = residual.mean(axis=0)
    place = spread(often)
    frozen_runs = runs(frozen)
    return Value(
        {
            "frozen_share": float(frozen.mean()),
            "still_share": float(still.mean()),
            "longest_frozen_s": max((end - start for start, end in frozen_runs), default=0) * _STEP_S,
            "slides": _slides(frames, still),
            "moving_area": float((often >= _OFTEN).mean()),
            "ever_moving_area": float((often > 0).mean()),
            "residual_area": float(often.mean()),
            "motion_energy": float(np.mean([change.energy for change in changes])),
            "home_share": home_share(frames, often >= _OFTEN, _HOME),
            "motion_x": place.x if place else None,
            "motion_y": place.y if place else None,
            "motion_spread": place.deviation if place else None,
            "global_motion": float(np.mean([change.shift for change in changes])) / frames[0].shape[1] / _STEP_S,
            "frozen": [{"start_s": start * _STEP_S, "end_s": end * _STEP_S} for start, end in frozen_runs],
            "activity": residual.mean(axis=(1, 2)).astype(np.float32).tolist(),
        }
    )


def _slides(frames: list[np.ndarray], still: np.ndarray) -> int:
    slides: list[np.ndarray] = []
    for start, end in runs(still):
        if (end - start) * _STEP_S < _MIN_SLIDE_S:
            continue
        first = frames[start].astype(np.int16)
        if all(np.abs(first - slide).mean() > FLOOR for slide in slides):
            slides.append(frames[end].astype(np.int16))
    return len(slides)
