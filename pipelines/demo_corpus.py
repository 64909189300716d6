"""The demo's corpus: real clips out of packages, talkers rendered here, and one planted fault in each of many.

corpus = build(Path("demo/corpus"))  # holds the files and labels.tsv
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from kit.weights import resolve
from media.decode import decode_clip
from media.encode import write_video
from media.probe import probe
from perception import speech_synthesis
from perception.tracks import TRACKER_WEIGHTS, load_tracker
from pipelines.talkers.articulation import FPS, articulate, closed
from pipelines.talkers.faults import degrade, drown, fit_level, freeze, music, shift, subtitle, truncate
from pipelines.talkers.talker import Talker, find_face

LABELS = "labels.tsv"
PORTRAITS = ("portrait", "portrait_hopper")
REAL = {"demo_interview": "text", "demo_grimace": "muted", "demo_carphone": "muted", "demo_smile": "no_speech"}
WEIGHTS = (*PORTRAITS, *REAL, *TRACKER_WEIGHTS, *speech_synthesis.WEIGHTS)

SIDE = 448
WORKERS = 2
_ROOM = 10 ** (-62 / 20)  # no microphone hears nothing
_SHIFTS = (0.4, -0.32, 0.8, -0.6)
_SNR_DB = 0.0
_GOOD_CRF, _BAD_CRF = 20, 38


@dataclass(frozen=True)
class Person:
    """A talker of the demo.

    Attributes:
        portrait: name in the weights registry.
        box: the part of the portrait that is shown, x1, y1, x2, y2 in its pixels: square.
        mirrored: left and right exchanged.
        tint: a hue, the saturation (0…1) from which it counts, and by how many degrees it is turned.
        voice: of Kokoro.
        text: what is said.
    """

    name: str
    portrait: str
    box: tuple[int, int, int, int]
    mirrored: bool
    tint: tuple[float, float, float] | None
    voice: str
    text: str


PEOPLE = (
    Person("ada", "portrait", (88, 0, 372, 284), False, None, "jf_alpha",
           "Good morning. You may know the moon from a picture, but nothing will tell you how bright it is."),
    Person("bea", "portrait_hopper", (16, 0, 496, 480), False, None, "jf_gongitsune",
           "We open the market at five, and my father will make a big bowl of soup."),
    Person("cleo", "portrait", (100, 8, 350, 258), True, (12, 0.6, 205), "jf_nezumi",
           "When I was a child, every map in our home had a river, and a house by the sea."),
    Person("dora", "portrait_hopper", (56, 10, 476, 430), True, (212, 0.25, 140), "jf_tebukuro",
           "Please remember, a good bridge is never done. Many people must keep it alive."),
    Person("robin", "portrait_hopper", (16, 0, 496, 480), True, (212, 0.25, -60), "jm_kumo",
           "The hard part of the voyage was the long wait. We read, and we told an old story."),
)  # fmt: skip


@dataclass(frozen=True)
class Take:
    """A good clip of a person.

    Attributes:
        frames: uint8 RGB ``[SIDE, SIDE, 3]`` each, at ``articulation.FPS``.
        speech: float32 ``[n]`` at ``speech_synthesis.RATE``, in time with the frames.
    """

    person: Person
    frames: list[np.ndarray]
    speech: np.ndarray


def build(folder: Path, seed: int = 0) -> Path:
    """Render everything into ``folder`` and give the path of its ``labels.tsv``.

    Its columns are ``file``, ``label`` (``keep``, a reason not to keep, ``cut`` or ``broken``) and ``params``,
    ``key=value`` pairs: ``shift_s`` (positive is audio late), ``audio_of``, ``snr_db``, ``cut_s``, ``origin``.

    Raises:
        WeightsError: naming the model files that are missing and how to fetch them.
    """
    weights = resolve(WEIGHTS)
    folder.mkdir(parents=True, exist_ok=True)
    tracker = load_tracker(weights)
    talkers = [Talker(find_face(portrait_of(person, weights[person.portrait]), tracker)) for person in PEOPLE]
    voice = speech_synthesis.Speech(weights)
    with ThreadPoolExecutor(WORKERS) as pool:

        def record(person: Person, talker: Talker, number: int) -> Take:
            speech = fit_level(voice.say(person.text, person.voice))
            return Take(person, list(talker.frames(articulate(speech, speech_synthesis.RATE), seed + number)), speech)

        takes = list(pool.map(record, PEOPLE, talkers, range(len(PEOPLE))))
        shelf = _Shelf(folder, pool, seed)
        _plant(shelf, takes, talkers, seed)
        _add_real(shelf, weights, takes)
        return shelf.close()


def _plant(shelf: _Shelf, takes: Sequence[Take], talkers: Sequence[Talker], seed: int) -> None:
    ada, bea, cleo, dora, robin = takes
    names = {take.person.name: f"{take.person.name}__keep.mp4" for take in takes}
    names["robin"] = """robin's "long wait" – take 1__keep.mp4"""
    for take in takes:
        shelf.add(names[take.person.name], "keep", take.frames, take.speech)
    shelf.add("ada__static.mp4", "static", ada.frames, ada.speech, change=freeze)
    shelf.add("dora__static.mp4", "static", dora.frames, dora.speech, change=freeze)
    for take in (bea, cleo):
        words = partial(subtitle, text=take.person.text)
        shelf.add(f"{take.person.name}__text.mp4", "text", take.frames, take.speech, change=words)
    shelf.add("cleo__quality.mp4", "quality", cleo.frames, cleo.speech, change=degrade, crf=_BAD_CRF)
    shelf.add("robin__quality.mp4", "quality", robin.frames, robin.speech, change=degrade, crf=_BAD_CRF)
    shelf.add("bea__muted.mp4", "muted", bea.frames, None)
    shelf.add("dora__music.mp4", "no_speech", dora.frames, music(len(dora.frames) / FPS, speech_synthesis.RATE, seed))
    for take in (ada, dora):
        noisy = drown(take.speech, _SNR_DB, seed)
        shelf.add(f"{take.person.name}__noisy.mp4", "noisy", take.frames, noisy, snr_db=_SNR_DB)
    for seen, heard in ((bea, robin), (cleo, ada)):
        name = f"{seen.person.name}__swapped.mp4"
        shelf.add(name, "unsynced", seen.frames, heard.speech, audio_of=heard.person.name)
    for take, seconds in zip((ada, bea, cleo, robin), _SHIFTS):
        late = shift(take.speech, seconds, speech_synthesis.RATE)
        shelf.add(f"{take.person.name}__shifted.mp4", "unsynced", take.frames, late, shift_s=seconds)
    for number, (seen, heard) in enumerate(((0, robin), (1, cleo))):
        silent = list(talkers[seen].frames(closed(len(heard.frames)), seed + 100 + number))
        name = f"{takes[seen].person.name}__voiceover.mp4"
        shelf.add(name, "no_speaker", silent, heard.speech, audio_of=heard.person.name)
    # Long enough on both sides of the cut for a clip.
    half = min(round(3.4 * FPS), len(ada.frames))
    samples = round(half / FPS * speech_synthesis.RATE)
    joined = np.concatenate([ada.speech[:samples], robin.speech[:samples]])
    shelf.add("ada_robin__cut.mp4", "cut", ada.frames[:half] + robin.frames[:half], joined, cut_s=half / FPS)
    shelf.add_truncated("cleo__broken.mp4", names["cleo"])


def _add_real(shelf: _Shelf, weights: dict[str, Path], takes: Sequence[Take]) -> None:
    for name, label in REAL.items():
        shelf.copy(f"{name}__{label}.mp4", label, weights[name])
    # A real face that does not talk, there and back until the speech is over.
    smile = weights["demo_smile"]
    frames = decode_clip(str(smile), 0, probe(str(smile)).duration_s, needs=frozenset({"frames"})).frames
    heard = takes[2]
    there_and_back = [*frames, *frames[-2:0:-1]]
    looped = [there_and_back[index % len(there_and_back)] for index in range(len(heard.frames))]
    shelf.add("demo_smile__voiceover.mp4", "no_speaker", looped, heard.speech, audio_of=heard.person.name)


class _Shelf:
    """Writes files side by side, and the labels when all are written."""

    def __init__(self, folder: Path, pool: ThreadPoolExecutor, seed: int) -> None:
        self._folder, self._pool = folder, pool
        self._random = np.random.default_rng(seed)
        self._rows: list[tuple[str, str, str]] = []
        self._writing: dict[str, Future[None]] = {}

    def add(
        self,
        name: str,
        label: str,
        frames: Sequence[np.ndarray],
        speech: np.ndarray | None,
        change: Callable[[Sequence[np.ndarray]], Iterable[np.ndarray]] = iter,
        crf: int = _GOOD_CRF,
        **params: object,
    ) -> None:
        """A clip as long as its frames, which ``change`` alters as they are written; no speech is a silent track."""
        samples = round(len(frames) / FPS * speech_synthesis.RATE)
        heard = np.zeros(samples, np.float32)
        if speech is not None:
            heard[: len(speech)] = speech[:samples]
            heard += self._random.normal(0, _ROOM, samples).astype(np.float32)
        self._note(name, label, params)

        def write() -> None:
            write_video(
                self._folder / name,
                change(frames),
                FPS,
                audio=heard,
                audio_rate=speech_synthesis.RATE,
                crf=crf,
                preset="superfast",
            )

        self._writing[name] = self._pool.submit(write)

    def add_truncated(self, name: str, whole: str) -> None:
        self._writing[whole].result()
        self._note(name, "broken", {})
        truncate(self._folder / whole, self._folder / name)

    def copy(self, name: str, label: str, source: Path) -> None:
        self._note(name, label, {"origin": "package"})
        shutil.copyfile(source, self._folder / name)

    def close(self) -> Path:
        for future in self._writing.values():
            future.result()
        path = self._folder / LABELS
        with path.open("w", newline="", encoding="utf-8") as stream:
            table = csv.writer(stream, delimiter="\t", lineterminator="\n")
            table.writerow(("file", "label", "params"))
            table.writerows(self._rows)
        return path

    def _note(self, name: str, label: str, params: dict[str, object]) -> None:
        self._rows.append((name, label, " ".join(f"{key}={value}" for key, value in params.items())))


def portrait_of(person: Person, portrait: Path) -> np.ndarray:
    """The image that ``person`` is animated from: uint8 RGB ``[SIDE, SIDE, 3]``."""
    image = cv2.cvtColor(cv2.imread(str(portrait), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    x1, y1, x2, y2 = person.box
    how = cv2.INTER_AREA if x2 - x1 > SIDE else cv2.INTER_CUBIC
    image = cv2.resize(image[y1:y2, x1:x2], (SIDE, SIDE), interpolation=how)
    if person.mirrored:
        image = np.ascontiguousarray(image[:, ::-1])
    return image if person.tint is None else _turn_hue(image, *person.tint)


def _turn_hue(image: np.ndarray, hue: float, saturation: float, degrees: float) -> np.ndarray:
    """Dye one bright colour, clothes or background: what is within some 15° of ``hue`` and at least so saturated."""
    hsv = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    away = np.abs((hsv[..., 0] - hue + 180) % 360 - 180)
    share = np.clip((20 - away) / 10, 0, 1) * np.clip((hsv[..., 1] - saturation) / 0.15 + 1, 0, 1)
    share *= np.clip((hsv[..., 2] - 0.5) / 0.2, 0, 1)  # shadows, of the mouth's corners too, keep theirs
    hsv[..., 0] = (hsv[..., 0] + degrees) % 360
    dyed = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255
    return (image + share[..., None] * (dyed - image)).round().astype(np.uint8)
