"""Text over the frames: how much, how long, what it says, and whether it is only a channel's logo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pyarrow as pa

from engine.stage import NotApplicable, OpenClip, Outcome, Stage, StageConfig, Value, field
from perception.ocr import TextReader

# A logo is small, sits in a corner and never leaves.
_LOGO_WIDTH, _LOGO_HEIGHT = 0.25, 0.12
_CORNER_X, _CORNER_Y = 0.3, 0.25
# Subtitles stand in the lower third.
_LOWER_THIRD = 2 / 3
_SAME_PLACE = 0.4  # intersection over union
_SAME_TEXT = 0.7  # difflib's ratio: one string read twice differs in a letter or a blank
_SAME_STILL = 1.0  # grey levels, mean, at 64 px: codec noise
_MASK = 256

READINGS = pa.list_(
    pa.struct(
        [
            ("time_s", pa.float32()),
            ("text", pa.string()),
            ("confidence", pa.float32()),
            ("kind", pa.string()),
            *((side, pa.float32()) for side in ("left", "top", "right", "bottom")),
        ]
    )
)


class TextOverlayConfig(StageConfig):
    """Settings.

    Attributes:
        backend: the OCR network. ``ppocr``: PP-OCRv4 mobile, detector and recogniser.
        providers: onnxruntime's execution providers in order of preference.
        side: long side in pixels that the detector sees; text lower than about 8 pixels there is missed.
        min_confidence: readings below it are no text: the detector alone marks teeth, collars and leaves.
        min_length: nor are shorter strings.
    """

    backend: Literal["ppocr"] = "ppocr"
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    side: int = 480
    min_confidence: float = 0.8
    min_length: int = 2


@dataclass(slots=True)
class _Reading:
    still: int
    text: str
    confidence: float
    corners: np.ndarray  # float32 [4, 2], shares of the still's width and height
    kind: str = "other"

    @property
    def box(self) -> tuple[float, float, float, float]:
        return *map(float, self.corners.min(axis=0)), *map(float, self.corners.max(axis=0))


class TextOverlay(Stage[OpenClip]):
    """OCR of the clip's stills; of equal stills in a row only the first is read.

    Every reading has a kind. ``logo``: small, in a corner, the same in every still. ``subtitle``: in the lower third
    and either wide or not the same in every still. ``other``: any other text. Text that belongs to the scene (a sign, a
    book) is read as well and counts as ``other`` or ``subtitle``: OCR cannot tell it from burned-in text.
    """

    name = "text_overlay"
    version = "1"
    Config = TextOverlayConfig
    needs = frozenset({"stills"})
    values = pa.schema(
        [
            field(
                "area", pa.float32(), "Share of the picture under text that is no logo, mean over the stills, 0 to 1"
            ),
            field("peak_area", pa.float32(), "The same in the still with most of it, 0 to 1"),
            field("time_share", pa.float32(), "Share of the stills with text that is no logo, 0 to 1"),
            field("subtitle_area", pa.float32(), "Share of the picture under subtitles, mean over the stills, 0 to 1"),
            field("subtitle_time_share", pa.float32(), "Share of the stills with subtitles, 0 to 1"),
            field("logo_area", pa.float32(), "Share of the picture under a corner logo's text, 0 to 1"),
            field("logo_time_share", pa.float32(), "Share of the stills with a corner logo's text, 0 or 1"),
            field("strings", pa.list_(pa.string()), "Different strings read that are no logo, in order of appearance"),
            field("confidences", pa.list_(pa.float32()), "Best confidence of each of strings, 0 to 1"),
            field("logo_strings", pa.list_(pa.string()), "Different strings read in logos"),
            field(
                "readings",
                READINGS,
                "Every line read: seconds, string, confidence, kind (logo, subtitle, other), box in shares",
            ),
            field("stills", pa.int32(), "Number of stills looked at"),
        ]
    )

    def weights(self) -> tuple[str, ...]:
        return ("ppocr_det", "ppocr_rec")

    def setup(self, weights: Mapping[str, Path]) -> None:
        self._reader = TextReader(weights["ppocr_det"], weights["ppocr_rec"], self.config.side, self.config.providers)

    def score(self, items: Sequence[OpenClip]) -> list[Outcome]:
        return [self._score(item) for item in items]

    def _score(self, item: OpenClip) -> Outcome:
        stills = item.media.stills
        if not stills:
            return NotApplicable("no picture")
        readings: list[_Reading] = []
        latest: list[_Reading] = []
        seen: np.ndarray | None = None
        for index, still in enumerate(stills):
            small = cv2.resize(still, (64, 64), interpolation=cv2.INTER_AREA).astype(np.float32)
            if seen is None or np.abs(small - seen).mean() > _SAME_STILL or _repainted(small, seen):
                latest, seen = self._read(still), small
            readings += [_Reading(index, known.text, known.confidence, known.corners) for known in latest]
        classify(readings, len(stills))
        return Value(_summary(readings, len(stills), item.media.still_times_s))

    def _read(self, still: np.ndarray) -> list[_Reading]:
        size = np.array([still.shape[1], still.shape[0]], np.float32)
        return [
            _Reading(0, text, box.confidence, box.corners / size)
            for box in self._reader.read(still)
            if box.confidence >= self.config.min_confidence and len(text := box.text.strip()) >= self.config.min_length
        ]


def _repainted(small: np.ndarray, seen: np.ndarray) -> bool:
    """Whether a part as small as a word changed much, though the whole did not."""
    return bool(cv2.blur(np.abs(small - seen).mean(axis=2), (3, 3)).max() > 8 * _SAME_STILL)


def classify(readings: Sequence[_Reading], stills: int) -> None:
    """Set each reading's kind, as :class:`TextOverlay` defines them."""
    for reading in readings:
        left, top, right, bottom = reading.box
        x, y = (left + right) / 2, (top + bottom) / 2
        constant = len({other.still for other in readings if _same(reading, other)}) == stills
        small = right - left <= _LOGO_WIDTH and bottom - top <= _LOGO_HEIGHT
        corner = min(x, 1 - x) < _CORNER_X and min(y, 1 - y) < _CORNER_Y
        if constant and small and corner:
            reading.kind = "logo"
        elif y > _LOWER_THIRD and (not constant or right - left > _LOGO_WIDTH):
            reading.kind = "subtitle"


def _same(one: _Reading, other: _Reading) -> bool:
    left, top, right, bottom = one.box
    left2, top2, right2, bottom2 = other.box
    across, down = min(right, right2) - max(left, left2), min(bottom, bottom2) - max(top, top2)
    if across <= 0 or down <= 0:
        return False
    shared = across * down
    union = (right - left) * (bottom - top) + (right2 - left2) * (bottom2 - top2) - shared
    return shared > _SAME_PLACE * union and SequenceMatcher(None, one.text, other.text).ratio() > _SAME_TEXT


def _summary(readings: list[_Reading], stills: int, times: np.ndarray) -> dict[str, object]:
    subtitles = [reading for reading in readings if reading.kind == "subtitle"]
    logos = [reading for reading in readings if reading.kind == "logo"]
    text = [reading for reading in readings if reading.kind != "logo"]
    areas, best = _areas(text, stills), _best(text)
    return {
        "area": float(areas.mean()),
        "peak_area": float(areas.max()),
        "time_share": _time_share(text, stills),
        "subtitle_area": float(_areas(subtitles, stills).mean()),
        "subtitle_time_share": _time_share(subtitles, stills),
        "logo_area": float(_areas(logos, stills).mean()),
        "logo_time_share": _time_share(logos, stills),
        "strings": list(best),
        "confidences": list(best.values()),
        "logo_strings": list(_best(logos)),
        "readings": [
            {
                "time_s": float(times[reading.still]),
                "text": reading.text,
                "confidence": reading.confidence,
                "kind": reading.kind,
                **dict(zip(("left", "top", "right", "bottom"), reading.box)),
            }
            for reading in readings
        ],
        "stills": stills,
    }


def _best(readings: Sequence[_Reading]) -> dict[str, float]:
    best: dict[str, float] = {}
    for reading in readings:
        best[reading.text] = max(best.get(reading.text, 0.0), reading.confidence)
    return best


def _time_share(readings: Sequence[_Reading], stills: int) -> float:
    return len({reading.still for reading in readings}) / stills


def _areas(readings: Sequence[_Reading], stills: int) -> np.ndarray:
    """float64 ``[stills]``: share of each still under ``readings``; overlaps count once."""
    masks = np.zeros((stills, _MASK, _MASK), np.uint8)
    for reading in readings:
        cv2.fillConvexPoly(masks[reading.still], np.round(reading.corners * (_MASK - 1)).astype(np.int32), 1)
    return masks.mean(axis=(1, 2))
