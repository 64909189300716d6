"""Technical quality: sharpness of frame and face, exposure, bars, face size, bits a pixel, and a learned score."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pyarrow as pa

from curation.derived import face_tracks
from engine.stage import NotApplicable, OpenClip, Outcome, Stage, StageConfig, Value, field
from media.clip import GRID_FPS, ClipMedia
from perception import image
from perception.brisque import Brisque
from perception.dover import Dover
from perception.tracks import TRACKER_WEIGHTS, FaceTrack, load_tracker

_FRAME_SIDE = 640  # sharpness is compared at this long side
_FACE_SIDE = 128  # and of faces at this one, as SpeakerVid-5M does
_FACE_SAMPLES = 5
_IQA_STILLS = 3
_IQA_SIDE = 768  # the middle of a larger image is representative, and the time bounded
_MIN_SIDE = 32


class QualityConfig(StageConfig):
    """Settings.

    Attributes:
        backend: ``measures``: the measures alone. ``iqa``: and BRISQUE. ``dover``: and DOVER from an ONNX file, whose
            path is given as weight ``dover``.
        providers: onnxruntime's execution providers for DOVER, in order of preference.
    """

    backend: Literal["measures", "iqa", "dover"] = "iqa"
    providers: tuple[str, ...] = ("CPUExecutionProvider",)


_WEIGHTS = {"measures": (), "iqa": ("brisque_model", "brisque_ranges"), "dover": ("dover",)}


class Quality(Stage[OpenClip]):
    """Measures of the full-size stills without their black bars, and of the main face.

    Enlarging, blur and heavy compression each leave a different trace: enlarging and blur lower ``detail_cutoff`` and
    ``sharpness``, strong compression lowers ``bits_per_pixel`` and leaves ``blockiness``, whose edges look like detail
    to ``detail_cutoff``. ``brisque`` reacts to all of them.
    """

    name = "quality"
    version = "1"
    Config = QualityConfig
    needs = frozenset({"stills", "frames"})
    values = pa.schema(
        [
            field("sharpness", pa.float32(), "Deviation of the Laplacian over that of the luminance at 640 px, 0 up"),
            field("face_sharpness", pa.float32(), "The same of the main face scaled to 128 px, 0 up"),
            field("laplacian", pa.float32(), "Variance of the Laplacian at 640 px, grey levels squared"),
            field("face_laplacian", pa.float32(), "The same of the main face scaled to 128 px, grey levels squared"),
            field(
                "detail_cutoff",
                pa.float32(),
                "Where detail ends, cycles a pixel: 0.5 is all, about 0.6 / k enlarged k times",
            ),
            field("effective_height", pa.float32(), "Height in pixels that would hold the detail there is"),
            field(
                "blockiness", pa.float32(), "Luminance steps on an 8 x 8 grid over those elsewhere, minus 1; 0 is none"
            ),
            field("noise", pa.float32(), "Standard deviation of noise, grey levels 0 to 255"),
            field("luminance", pa.float32(), "Mean luminance, grey levels 0 to 255"),
            field("face_luminance", pa.float32(), "Mean luminance of the main face, grey levels 0 to 255"),
            field("contrast", pa.float32(), "Standard deviation of the luminance, grey levels 0 to 127"),
            field("dark_clipped", pa.float32(), "Share of pixels that are black (luminance 3 or less), 0 to 1"),
            field("bright_clipped", pa.float32(), "Share of pixels that are white (luminance 252 or more), 0 to 1"),
            field("letterbox", pa.float32(), "Share of the height under black bars, 0 to 1"),
            field("pillarbox", pa.float32(), "Share of the width under black bars, 0 to 1"),
            field("face_size_px", pa.float32(), "Main face: median of sqrt(width x height), source pixels"),
            field("height", pa.int32(), "Height of the picture as displayed, pixels"),
            field("bits_per_pixel", pa.float32(), "Bits of the video stream a source pixel"),
            field("brisque", pa.float32(), "BRISQUE, mean of three stills: about 0 (best) to 100"),
            field("vqa", pa.float32(), "DOVER, overall, 0 to 1 (best)"),
            field("vqa_technical", pa.float32(), "DOVER, technical branch as the network gives it"),
            field("vqa_aesthetic", pa.float32(), "DOVER, aesthetic branch as the network gives it"),
        ]
    )

    def weights(self) -> tuple[str, ...]:
        return (*TRACKER_WEIGHTS, *_WEIGHTS[self.config.backend])

    def setup(self, weights: Mapping[str, Path]) -> None:
        self._tracker = load_tracker(weights)
        self._brisque = self._dover = None
        if self.config.backend == "iqa":
            self._brisque = Brisque(weights["brisque_model"], weights["brisque_ranges"])
        elif self.config.backend == "dover":
            self._dover = Dover(weights["dover"], self.config.providers)

    def score(self, items: Sequence[OpenClip]) -> list[Outcome]:
        return [self._score(item.media) for item in items]

    def _score(self, media: ClipMedia) -> Outcome:
        if not media.stills:
            return NotApplicable("no picture")
        greys = [cv2.cvtColor(still, cv2.COLOR_RGB2GRAY) for still in media.stills]
        height, width = greys[0].shape
        top, bottom, left, right = image.bars(greys)
        active = [grey[top : height - bottom, left : width - right] for grey in greys]
        if min(active[0].shape) < _MIN_SIDE:
            return NotApplicable(f"a picture of {active[0].shape[1]} x {active[0].shape[0]} pixels holds no detail")
        chosen = [_middle(grey) for grey in _spread(active, _IQA_STILLS)]
        tracks = face_tracks(media, self._tracker)
        detail = image.cutoff(image.spectrum(chosen))
        scores = [score for grey in chosen if self._brisque and (score := self._brisque(grey)) is not None]
        return Value(
            {
                **_frame_sharpness(active),
                **_face_measures(media, tracks[0] if tracks else None),
                "detail_cutoff": detail,
                "effective_height": 2 * detail * (height - top - bottom),
                "blockiness": _mean(image.blockiness(grey) for grey in chosen),
                "noise": _mean(image.noise(grey) for grey in chosen),
                **_exposure(active),
                "letterbox": (top + bottom) / height,
                "pillarbox": (left + right) / width,
                "height": media.height,
                "bits_per_pixel": _bits_per_pixel(media),
                "brisque": float(np.mean(scores)) if scores else None,
                **(self._dover(media.frames) if self._dover else dict.fromkeys(Dover.columns)),
            }
        )


def _spread(greys: Sequence[np.ndarray], count: int) -> list[np.ndarray]:
    """At most ``count`` of ``greys``, evenly chosen."""
    if len(greys) <= count:
        return list(greys)
    return [greys[(2 * index + 1) * len(greys) // (2 * count)] for index in range(count)]


def _middle(grey: np.ndarray) -> np.ndarray:
    height, width = grey.shape
    top, left = max(0, height - _IQA_SIDE) // 2, max(0, width - _IQA_SIDE) // 2
    return grey[top : top + _IQA_SIDE, left : left + _IQA_SIDE]


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _frame_sharpness(greys: Sequence[np.ndarray]) -> dict[str, float]:
    height, width = greys[0].shape
    scale = min(1.0, _FRAME_SIDE / max(height, width))
    size = round(width * scale), round(height * scale)
    small = [cv2.resize(grey, size, interpolation=cv2.INTER_AREA) if scale < 1 else grey for grey in greys]
    return {
        "sharpness": _mean(map(image.sharpness, small)),
        "laplacian": _mean(map(image.laplacian, small)),
    }


def _face_measures(media: ClipMedia, track: FaceTrack | None) -> dict[str, float | None]:
    """Of the main face, cut from full-size stills where they show it, else from the frames."""
    crops = _face_crops(media, track) if track is not None else []
    scale = media.width / max(media.frames.shape[2], 1)
    return {
        "face_size_px": float(np.median(track.sizes)) * scale if track is not None else None,
        "face_sharpness": _mean(map(image.sharpness, crops)) if crops else None,
        "face_laplacian": _mean(map(image.laplacian, crops)) if crops else None,
        "face_luminance": _mean(crop.mean() for crop in crops) if crops else None,
    }


def _face_crops(media: ClipMedia, track: FaceTrack) -> list[np.ndarray]:
    crops = []
    for still, time in zip(media.stills, media.still_times_s):
        nearest = int(np.abs(track.frames / GRID_FPS - time).argmin())
        if abs(track.frames[nearest] / GRID_FPS - time) > 1 / GRID_FPS:
            continue
        scale = still.shape[1] / media.frames.shape[2]
        x1, y1, x2, y2 = (max(0, round(float(edge) * scale)) for edge in track.boxes[nearest])
        crop = still[y1:y2, x1:x2]
        if min(crop.shape[:2]) >= 8:
            grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
            how = cv2.INTER_AREA if min(grey.shape) > _FACE_SIDE else cv2.INTER_LINEAR
            crops.append(cv2.resize(grey, (_FACE_SIDE, _FACE_SIDE), interpolation=how))
    return crops


def _exposure(greys: Sequence[np.ndarray]) -> dict[str, float]:
    return {
        "luminance": _mean(grey.mean() for grey in greys),
        "contrast": _mean(grey.std() for grey in greys),
        "dark_clipped": _mean((grey <= 3).mean() for grey in greys),
        "bright_clipped": _mean((grey >= 252).mean() for grey in greys),
    }


def _bits_per_pixel(media: ClipMedia) -> float | None:
    pixels = media.width * media.height * max(1.0, media.fps * media.duration_s)
    return media.video_bytes * 8 / pixels if media.video_bytes else None
