"""A talking head from one photograph: its face is warped to a given mouth, blinks and sways before a moving camera.

Every part is a backward map in the coordinates of that part. Lips and lids are curves through Face Mesh landmarks:
where a curve moves, the skin between it and a fixed line (nose, jaw, neck, fold of the lid) stretches evenly, and what
opens between the lips is painted: darkness, upper teeth, tongue. Then the head moves as a whole against a background
that stays, under a hand-held camera with sensor noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from kit.errors import UserError
from perception.tracks import FaceTracker
from pipelines.talkers.articulation import FPS, Mouth

UPPER_LIP = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
LOWER_LIP = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
JAW = (172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397)
NOSE_BASE = 2
UPPER_LIDS = ((33, 246, 161, 160, 159, 158, 157, 173, 133), (362, 398, 384, 385, 386, 387, 388, 466, 263))
LOWER_LIDS = ((33, 7, 163, 144, 145, 153, 154, 155, 133), (362, 382, 381, 380, 374, 373, 390, 249, 263))

# In half widths of the mouth.
_JAW_DROP = 0.56
_LIP_RAISE = 0.10
_CORNER_DROP = 0.10
_WIDENING = 0.11
_TEETH = 0.17
_NECK = 1.3

_GAP = np.array([38, 15, 15], np.float32)
_TEETH_COLOUR = np.array([240, 218, 190], np.float32)
_TONGUE_COLOUR = np.array([136, 62, 60], np.float32)

_BLINK = np.array([0.35, 0.9, 1.0, 0.8, 0.45, 0.15], np.float32)  # how shut the lids are, frame by frame
_NOISE = 1.6  # standard deviation of the sensor's noise, of 255
_NOISE_FIELDS = 8


class PortraitError(UserError):
    """An image in which no face can be followed."""


@dataclass(frozen=True, slots=True)
class Portrait:
    """uint8 RGB ``image`` ``[h, w, 3]`` with its face's ``landmarks``, float32 ``[468, 2]``, pixels."""

    image: np.ndarray
    landmarks: np.ndarray


def find_face(image: np.ndarray, tracker: FaceTracker) -> Portrait:
    """Raises :class:`PortraitError` unless exactly one face is in ``image``."""
    # The tracker wants a face to last; its landmarks settle over the first frames.
    tracks = tracker.track(np.stack([image] * 12))
    if len(tracks) != 1:
        raise PortraitError(f"{len(tracks)} faces in the portrait; one is needed")
    return Portrait(image, tracks[0].landmarks[-1, :, :2].astype(np.float32))


class Talker:
    """Renders a portrait that talks."""

    def __init__(self, portrait: Portrait) -> None:
        self._image = portrait.image
        self._mouth = _MouthRegion(portrait)
        self._lids = [_LidRegion(portrait, *lids) for lids in zip(UPPER_LIDS, LOWER_LIDS)]
        self._head = _Head(portrait)

    def frames(self, mouth: Mouth, seed: int) -> Iterator[np.ndarray]:
        """uint8 RGB frames of the portrait's size, one for each value of ``mouth``."""
        random = np.random.default_rng(seed)
        blinks = _blinks(len(mouth), random)
        motion = _Motion(len(mouth), mouth.opening, random)
        noise = random.normal(0, _NOISE, (_NOISE_FIELDS, *self._image.shape)).round().astype(np.int16)
        for index in range(len(mouth)):
            face = self._image.copy()
            for lid in self._lids:
                lid.draw(face, blinks[index])
            self._mouth.draw(face, float(mouth.opening[index]), float(mouth.width[index]))
            frame = self._head.move(face, motion, index)
            grain = noise[random.integers(_NOISE_FIELDS), :: random.choice((-1, 1)), :: random.choice((-1, 1))]
            yield cv2.add(frame, grain, dtype=cv2.CV_8U)


class _LocalPatch:
    """A part of the image in its own coordinates: u from −1 to 1 between two corners, v downwards in the same unit."""

    def __init__(self, image: np.ndarray, corners: np.ndarray, u: tuple[float, float], v: tuple[float, float]) -> None:
        self.centre = corners.mean(axis=0)
        across = (corners[1] - corners[0]) / 2
        self.unit = float(np.hypot(*across))
        self._axes = np.stack([across, [-across[1], across[0]]])
        ends = np.array([[a, b] for a in u for b in v]) @ self._axes + self.centre
        height, width = image.shape[:2]
        x1, y1 = np.maximum(np.floor(ends.min(axis=0)), 0).astype(int)
        x2, y2 = np.minimum(np.ceil(ends.max(axis=0)) + 1, [width, height]).astype(int)
        self.window = np.s_[y1:y2, x1:x2]
        ys, xs = np.mgrid[y1:y2, x1:x2]
        local = self.place(np.stack([xs, ys], axis=-1).reshape(-1, 2)).reshape(*xs.shape, 2)
        self.u, self.v = local[..., 0].astype(np.float32), local[..., 1].astype(np.float32)

    def place(self, points: np.ndarray) -> np.ndarray:
        """Local coordinates ``[n, 2]`` of image points ``[n, 2]``."""
        return (points - self.centre) @ self._axes.T / self.unit**2

    def sample(self, image: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        axes = self._axes.astype(np.float32)
        x = u * axes[0, 0] + v * axes[1, 0] + np.float32(self.centre[0])
        y = u * axes[0, 1] + v * axes[1, 1] + np.float32(self.centre[1])
        return cv2.remap(image, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


class _Curve:
    """v as a function of u through landmarks."""

    def __init__(self, points: np.ndarray) -> None:
        order = np.argsort(points[:, 0])
        self._u, self._v = points[order].T

    def __call__(self, u: np.ndarray) -> np.ndarray:
        return np.interp(u, self._u, self._v).astype(np.float32)


class _MouthRegion:
    def __init__(self, portrait: Portrait) -> None:
        points = portrait.landmarks
        region = _LocalPatch(portrait.image, points[[UPPER_LIP[0], UPPER_LIP[-1]]], (-2.4, 2.4), (-1.6, 4.2))
        self._region = region
        curves = (_Curve(region.place(points[list(indices)])) for indices in (UPPER_LIP, LOWER_LIP, JAW))
        self._upper, self._lower, self._jaw = curves
        self._nose = float(region.place(points[[NOSE_BASE]])[0, 1])
        self._spread = region.u * np.exp(-((region.u / 1.3) ** 2) - region.v**2)
        # Nothing moves where the region ends.
        self._reach = _fade(np.abs(region.u), 1.0, 2.3)

    def draw(self, face: np.ndarray, opening: float, width: float) -> None:
        region = self._region
        v = region.v
        # Lips that open wide come together at the corners.
        u = region.u - (_WIDENING * width - 0.08 * opening) * self._spread
        upper, lower, jaw = self._upper(u), self._lower(u), self._jaw(u)
        rest = upper + 0.4 * (lower - upper)
        arch = np.clip(1 - u * u, 0, 1) ** 0.75
        corners = _CORNER_DROP * opening * self._reach
        top = rest + corners - _LIP_RAISE * opening * arch
        bottom = rest + corners + (_JAW_DROP - _CORNER_DROP) * opening * arch
        chin = jaw + 0.75 * _JAW_DROP * opening * self._reach
        neck = jaw + _NECK
        from_v = np.select(
            [v < self._nose, v < top, v < bottom, v < chin, v < neck],
            [
                v,
                _stretch(v, self._nose, top, self._nose, upper),
                upper,
                _stretch(v, bottom, chin, lower, jaw),
                _stretch(v, chin, neck, jaw, neck),
            ],
            v,
        ).astype(np.float32)
        patch = region.sample(face, u, from_v)
        face[region.window] = self._fill(patch, u, top, bottom, rest, opening)

    def _fill(
        self, patch: np.ndarray, u: np.ndarray, top: np.ndarray, bottom: np.ndarray, rest: np.ndarray, opening: float
    ) -> np.ndarray:
        """Paint what is seen between the lips' edges ``top`` and ``bottom``."""
        v, unit = self._region.v, self._region.unit
        gap = bottom - top
        inside = _step((v - top) * unit) * _step((bottom - v) * unit) * np.clip(gap * unit / 2, 0, 1)
        if not inside.any():
            return patch
        colour = np.broadcast_to(_GAP, patch.shape)
        tongue = 0.7 * opening * np.clip((v - bottom + 0.3) / 0.25, 0, 1) * np.clip(1 - u * u * 1.6, 0, 1)
        colour = colour + tongue[..., None] * (_TONGUE_COLOUR - colour)
        # The upper teeth hang from the skull, and the lip's shadow lies on them.
        teeth = _step((rest + _TEETH * (1 - 0.5 * u * u) - v) * unit) * np.clip((0.8 - np.abs(u)) / 0.15, 0, 1)
        light = (0.55 + 0.35 * np.clip((v - top) / 0.15, 0, 1)) * (1 - 0.45 * u * u)
        colour = colour + teeth[..., None] * (_TEETH_COLOUR * light[..., None] - colour)
        return np.clip(patch + inside[..., None] * (colour - patch), 0, 255).astype(np.uint8)


class _LidRegion:
    # In half widths of the eye: how far above the lid its skin folds, and how far its lashes reach.
    _FOLD = 0.6
    _LASHES = 0.14

    def __init__(self, portrait: Portrait, upper: tuple[int, ...], lower: tuple[int, ...]) -> None:
        points = portrait.landmarks
        region = _LocalPatch(portrait.image, points[[upper[0], upper[-1]]], (-1.1, 1.1), (-1.3, 0.8))
        self._region = region
        self._upper = _Curve(region.place(points[list(upper)]))(region.u)
        self._lower = _Curve(region.place(points[list(lower)]))(region.u)

    def draw(self, face: np.ndarray, shut: float) -> None:
        if shut == 0:
            return
        region, v = self._region, self._region.v
        edge = self._upper + 0.92 * shut * (self._lower - self._upper)
        fold = self._upper - self._FOLD
        # The lashes stay at the edge of the lid that comes down.
        skin = self._upper - self._LASHES * shut
        lid = (v > fold) & (v < edge)
        from_v = np.where(lid, _stretch(v, fold, edge, fold, skin), v).astype(np.float32)
        face[region.window] = region.sample(face, region.u, from_v)


@dataclass(slots=True)
class _Motion:
    """Head and camera over time, in pixels of a 512-pixel frame and radians; each float ``[T]``."""

    x: np.ndarray
    y: np.ndarray
    tilt: np.ndarray
    yaw: np.ndarray
    pitch: np.ndarray
    camera_x: np.ndarray
    camera_y: np.ndarray

    def __init__(self, count: int, opening: np.ndarray, random: np.random.Generator) -> None:
        def wander(size: float, slow_s: float) -> np.ndarray:
            """A smooth random path of about ``size``, its periods between a quarter of and the whole ``slow_s``."""
            times = np.arange(count) / FPS
            periods, phases = slow_s / random.uniform(1, 4, 4), random.uniform(0, 2 * np.pi, 4)
            return size * np.sin(2 * np.pi * times[:, None] / periods + phases).mean(axis=1) * 2

        self.x, self.tilt = wander(5, 5), wander(0.028, 5)
        self.yaw, self.camera_x, self.camera_y = wander(4.5, 4), wander(0.8, 1.5), wander(0.8, 1.5)
        # Speakers nod with what they stress.
        stress = np.convolve(opening, np.hanning(13) / 6, mode="same")[:count] - opening.mean()
        self.y, self.pitch = wander(2.5, 4) + 3 * stress, wander(2, 4) + 3 * stress


class _Head:
    def __init__(self, portrait: Portrait) -> None:
        height, width = portrait.image.shape[:2]
        self._scale = np.float32(width / 512)
        low, high = portrait.landmarks.min(axis=0), portrait.landmarks.max(axis=0)
        centre, half = (low + high) / 2, (high - low) / 2
        self._y, self._x = np.mgrid[:height, :width].astype(np.float32)
        x, y = self._x - centre[0], self._y - centre[1]
        # Hair and hat move with the face, shoulders and background less and less.
        radius = np.hypot(x / (1.5 * half[0]), (y + 0.3 * half[1]) / (1.7 * half[1]))
        self._weight = _fade(radius, 0.9, 2.0)
        # What is nearer the camera moves further when the head turns.
        self._dome = np.clip(1 - (x / (1.2 * half[0])) ** 2 - (y / (1.3 * half[1])) ** 2, 0, 1).astype(np.float32)
        self._turn_x = self._weight * -(self._y - high[1])
        self._turn_y = self._weight * x

    def move(self, face: np.ndarray, motion: _Motion, index: int) -> np.ndarray:
        def at(series: np.ndarray) -> np.float32:
            return np.float32(series[index]) * self._scale

        tilt = np.float32(motion.tilt[index])
        x = self._x - at(motion.x) * self._weight - tilt * self._turn_x - at(motion.yaw) * self._dome
        y = self._y - at(motion.y) * self._weight - tilt * self._turn_y - at(motion.pitch) * self._dome
        return cv2.remap(
            face, x - at(motion.camera_x), y - at(motion.camera_y), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        )


def _blinks(count: int, random: np.random.Generator) -> np.ndarray:
    """How shut the lids are, float32 ``[count]``: a blink every 2 to 4 s, the first within the first 1.5 s."""
    shut = np.zeros(count + len(_BLINK), np.float32)
    frame = int(random.uniform(0.4, 1.5) * FPS)
    while frame < count:
        shut[frame : frame + len(_BLINK)] = _BLINK
        frame += int(random.uniform(2, 4) * FPS)
    return shut[:count]


def _stretch(v: np.ndarray, low, high, from_low, from_high) -> np.ndarray:
    """Where ``v`` in ``low…high`` comes from when ``from_low…from_high`` is stretched evenly over it."""
    return from_low + (v - low) * (from_high - from_low) / np.maximum(high - low, 1e-3)


def _fade(distance: np.ndarray, near: float, far: float) -> np.ndarray:
    """1 up to ``near``, 0 from ``far``, smooth between: float32."""
    t = np.clip((far - distance) / (far - near), 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)


def _step(pixels: np.ndarray) -> np.ndarray:
    """0 to 1 over the one pixel about 0: an edge without stairs."""
    return np.clip(pixels + 0.5, 0, 1)
