"""Train and cross-validate :mod:`perception.lip_cca`.

    python -m perception.train_lip_cca --clips DIR --offsets FILE --out perception/lip_cca.npz

``FILE`` is a tab-separated table with ``file``, ``audio_late_frames_25fps_estimate`` (the clip's own offset, a first
guess is enough) and ``origin``, whose first four path components name the clip's family. Real footage is seldom
exactly in sync: each clip's offset is estimated again by models that have not seen its family, and taken off before
the final fit. What is printed is measured on clips whose family the model has not seen.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kit import cli
from kit.cli import Command, Program, argument
from kit.errors import UserError
from kit.weights import resolve
from media.clip import GRID_FPS, SPEECH_RATE, MediaError
from media.decode import decode_clip
from media.probe import probe
from perception.lip_cca import (
    NEAR_FRAMES,
    STILL,
    LipCca,
    SyncEstimate,
    align_lips,
    detrend,
    estimate,
    in_context,
    mel_spectra,
    move_audio,
    onto,
)
from perception.tracks import TRACKER_WEIGHTS, load_tracker

DIRECTIONS = 10
LIP_COMPONENTS = 12
AUDIO_COMPONENTS = 20
RIDGE = 0.5
TRUSTED_FRAMES = 6  # an offset estimated beyond this is a miss, and the first guess stays
PIECE_S, SHORTEST_PIECE_S = 6.0, 3.0
SHIFTS = (-20, -10, 10, 20, 30)
SWAPS = 6
FALSE_ALARMS = 0.005


@dataclass(frozen=True, slots=True)
class TrainingClip:
    """A training clip: landmarks ``[n, 468, 3]`` of its face at 25 fps, its 16 kHz audio, and where it is from."""

    name: str
    family: str
    offset: int
    landmarks: np.ndarray
    speech: np.ndarray


@dataclass(frozen=True, slots=True)
class CrossValidation:
    """Estimates on pieces of unseen clips, and the frames by which each was really off."""

    in_sync: list[SyncEstimate]
    shifted: list[tuple[int, SyncEstimate]]
    swapped: list[SyncEstimate]

    def floors(self) -> tuple[float, float]:
        """Evidence that 0.5 % of the wrong pieces reach within ±3 frames of sync, and 0.5 % of the swapped anywhere."""
        wrong = [judged for _, judged in self.shifted] + self.swapped
        near = [judged.evidence if abs(judged.offset) <= NEAR_FRAMES else 0.0 for judged in wrong]
        anywhere = [judged.evidence for judged in self.swapped]
        return float(np.quantile(near, 1 - FALSE_ALARMS)), float(np.quantile(anywhere, 1 - FALSE_ALARMS))

    def summary(self) -> dict[str, float]:
        score = [judged.sync_evidence for judged in self.in_sync]
        wrong = [judged.sync_evidence for _, judged in self.shifted] + [judged.sync_evidence for judged in self.swapped]
        near, anywhere = self.floors()
        return {
            "pieces in sync": len(self.in_sync),
            "pieces shifted": len(self.shifted),
            "pieces swapped": len(self.swapped),
            "AUC in sync against shifted and swapped": _auc(score, wrong),
            "in sync: offset within 2 frames": _share(abs(judged.offset) <= 2 for judged in self.in_sync),
            "shifted: offset within 2 frames": _share(abs(j.offset - true) <= 2 for true, j in self.shifted),
            "floor in sync": near,
            "in sync accepted": _share(_accepted(judged, near) for judged in self.in_sync),
            "shifted accepted": _share(_accepted(judged, near) for _, judged in self.shifted),
            "swapped accepted": _share(_accepted(judged, near) for judged in self.swapped),
            "floor offset": anywhere,
            "swapped above it": _share(judged.evidence > anywhere for judged in self.swapped),
            "shifted above it": _share(judged.evidence > anywhere for _, judged in self.shifted),
            "shifted above it: within 2 frames": _share(
                abs(judged.offset - true) <= 2 for true, judged in self.shifted if judged.evidence > anywhere
            ),
        }


def _accepted(judged: SyncEstimate, floor: float) -> bool:
    return abs(judged.offset) <= NEAR_FRAMES and judged.evidence >= floor


def _auc(positive: Sequence[float], negative: Sequence[float]) -> float:
    a, b = np.array(positive)[:, None], np.array(negative)[None]
    return float(((a > b) + 0.5 * (a == b)).mean())


def _share(answers: Iterable[bool]) -> float:
    answers = list(answers)
    return sum(answers) / len(answers) if answers else float("nan")


def fit(samples: Sequence[TrainingClip], face: np.ndarray) -> LipCca:
    """Ridge CCA of lips and audio over all ``samples``, each with its offset taken off. Floors are left at 0."""
    lips = [detrend(align_lips(sample.landmarks, face)) for sample in samples]
    audio = [detrend(mel_spectra(sample.speech)) for sample in samples]
    lip_basis, audio_basis = _principal(lips, LIP_COMPONENTS), _principal(audio, AUDIO_COMPONENTS)
    x, y = [], []
    for sample, shape, spectra in zip(samples, lips, audio):
        first, last = max(0, -sample.offset), min(len(shape), len(spectra) - sample.offset)
        x.append(in_context(shape @ lip_basis)[first:last])
        y.append(in_context(spectra @ audio_basis)[first + sample.offset : last + sample.offset])
    x, y = np.concatenate(x), np.concatenate(y)
    whiten_x, whiten_y = _whitening(x), _whitening(y)
    u, correlations, v = np.linalg.svd(whiten_x.T @ (x.T @ y / len(x)) @ whiten_y)
    return LipCca(
        face=np.float32(face),
        lips=np.float32(_per_tap(lip_basis, whiten_x @ u[:, :DIRECTIONS])),
        audio=np.float32(_per_tap(audio_basis, whiten_y @ v[:DIRECTIONS].T)),
        correlations=np.float32(correlations[:DIRECTIONS]),
        floor_in_sync=0.0,
        floor_offset=0.0,
    )


def _principal(series: Sequence[np.ndarray], count: int) -> np.ndarray:
    """``[d, count]``: leading principal directions, scaled so that the first has variance 1."""
    rows = np.concatenate(series)
    variances, directions = np.linalg.eigh(rows.T @ rows / len(rows))
    return directions[:, ::-1][:, :count] / np.sqrt(variances[-1])


def _whitening(rows: np.ndarray) -> np.ndarray:
    covariance = rows.T @ rows / len(rows)
    covariance += RIDGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    variances, directions = np.linalg.eigh(covariance)
    return directions / np.sqrt(variances)


def _per_tap(basis: np.ndarray, projection: np.ndarray) -> np.ndarray:
    """The basis folded into a projection of five frames: ``[d, c], [5 c, K] -> [5 d, K]``."""
    taps = projection.reshape(-1, basis.shape[1], projection.shape[1])
    return np.concatenate([basis @ tap for tap in taps])


def mean_face(samples: Sequence[TrainingClip]) -> np.ndarray:
    """Mean place of the still points over all samples, frontal as the first one's is, at unit size."""
    clouds = []
    for sample in samples:
        points = sample.landmarks[np.isfinite(sample.landmarks).all((1, 2))][::5, STILL].astype(np.float64)
        clouds.append(points - points.mean(1, keepdims=True))
    face = clouds[0].mean(0)
    for _ in range(5):
        face = np.mean([_lay(cloud, face) for cloud in clouds], axis=0)
        face /= np.sqrt(np.square(face).sum(1).mean())
    return face


def _lay(points: np.ndarray, face: np.ndarray) -> np.ndarray:
    rotation, scale = onto(points, face)
    return (scale[:, None, None] * (points @ rotation)).mean(0)


def unseen_models(samples: Sequence[TrainingClip], face: np.ndarray) -> dict[str, LipCca]:
    """For each family, the model fitted on all the others."""
    families = sorted({sample.family for sample in samples})
    return {family: fit([s for s in samples if s.family != family], face) for family in families}


def estimate_offsets(samples: Sequence[TrainingClip], face: np.ndarray) -> list[TrainingClip]:
    """The samples with the offsets that models of the other families find."""
    models = unseen_models(samples, face)
    found = []
    for sample in samples:
        offset = estimate(models[sample.family], sample.landmarks, sample.speech).offset
        found.append(replace(sample, offset=offset) if abs(offset) <= TRUSTED_FRAMES else sample)
    return found


def validate(samples: Sequence[TrainingClip], models: Mapping[str, LipCca], seed: int = 0) -> CrossValidation:
    """Pieces of up to 6 s: as they are, shifted by known frames, and with another family's audio."""
    random = np.random.default_rng(seed)
    found = CrossValidation([], [], [])
    per_frame = round(SPEECH_RATE / GRID_FPS)
    for sample in samples:
        model = models[sample.family]
        speech = move_audio(sample.speech, sample.offset / GRID_FPS)
        for landmarks, audio in _pieces(sample.landmarks, speech):
            found.in_sync.append(estimate(model, landmarks, audio))
            for shift in SHIFTS:
                moved = move_audio(audio, -shift / GRID_FPS)
                found.shifted.append((shift, estimate(model, landmarks, moved)))
            others = [s for s in samples if s.family != sample.family and len(s.speech) >= len(audio)]
            for index in random.permutation(len(others))[:SWAPS]:
                other = others[index].speech
                start = random.integers(0, (len(other) - len(audio)) // per_frame + 1) * per_frame
                found.swapped.append(estimate(model, landmarks, other[start : start + len(audio)]))
    return found


def _pieces(landmarks: np.ndarray, speech: np.ndarray) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    step, per_frame = round(PIECE_S * GRID_FPS), round(SPEECH_RATE / GRID_FPS)
    for start in range(0, len(landmarks), step):
        end = min(start + step, len(landmarks), len(speech) // per_frame)
        if end - start >= SHORTEST_PIECE_S * GRID_FPS:
            yield landmarks[start:end], speech[start * per_frame : end * per_frame]


def read_samples(clips: Path, offsets: Path) -> list[TrainingClip]:
    """The clips that ``offsets`` lists, decoded and their largest face tracked.

    Raises:
        ValueError: a clip shows no face or has no audio.
    """
    tracker = load_tracker(resolve(TRACKER_WEIGHTS))
    samples: list[TrainingClip] = []
    with offsets.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    for row in rows:
        path = clips / row["file"]
        media = decode_clip(str(path), 0.0, probe(str(path)).duration_s, needs=frozenset({"frames", "audio"}))
        tracks = tracker.track(media.frames)
        if not tracks or not len(media.speech):
            raise ValueError(f"{path}: no {'audio' if tracks else 'face'}; take it out of {offsets}")
        start = int(tracks[0].frames[0]) * SPEECH_RATE // int(GRID_FPS)
        family = "/".join(row["origin"].split("/")[:4])
        offset = int(row["audio_late_frames_25fps_estimate"])
        samples.append(TrainingClip(row["file"], family, offset, tracks[0].landmarks, media.speech[start:]))
    return samples


def train(samples: Sequence[TrainingClip]) -> tuple[LipCca, CrossValidation]:
    """The estimator fitted on all samples, with the floors of its cross-validation, and that."""
    face = mean_face(samples)
    for _ in range(2):
        samples = estimate_offsets(samples, face)
    validation = validate(samples, unseen_models(samples, face))
    near, anywhere = validation.floors()
    return replace(fit(samples, face), floor_in_sync=near, floor_offset=anywhere), validation


def main(arguments: list[str] | None = None) -> int:
    return cli.run(PROGRAM, arguments)


def _train(options: argparse.Namespace) -> int:
    try:
        samples = read_samples(options.clips, options.offsets)
    except KeyError as error:
        raise UserError(f"{options.offsets} has no column {error}") from None
    except MediaError as error:
        raise UserError(str(error)) from error
    model, validation = train(samples)
    model.save(options.out)
    print(json.dumps(validation.summary(), indent=2))
    return 0


PROGRAM = Program(
    "python -m perception.train_lip_cca",
    "Train lip_cca and print its cross-validation as JSON.",
    Command(
        _train,
        "train lip_cca",
        ["python -m perception.train_lip_cca --clips DIR --offsets DIR/offsets.tsv --out perception/lip_cca.npz"],
        [
            argument("--clips", help="folder of talking clips, more or less in sync", type=Path, required=True),
            argument("--offsets", help="table of the clips, their offsets and origins", type=Path, required=True),
            argument("--out", help="where to write the estimator, .npz", type=Path, required=True),
        ],
    ),
)

if __name__ == "__main__":
    sys.exit(main())
