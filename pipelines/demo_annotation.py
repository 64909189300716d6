"""Write captions and reference voices of the demo's talkers from what the builder of the corpus knows.

They stand in for the jobs that will caption and speak, so that the demo carries prompts and references to the samples.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from curation.job import read_rows
from media.encode import write_wav
from perception.speech_synthesis import RATE
from pipelines.demo_corpus import PEOPLE, Person
from unitalking_data.permutation import hash64
from unitalking_data.schema import REFERENCES
from unitalking_data.storage import Store

WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
WORDS += ("moon", "river", "bridge", "story", "house", "picture", "morning", "market")
SECONDS = (3.0, 5.0)  # of a reference


class SpeechSynthesis(Protocol):
    """What :class:`perception.speech_synthesis.Speech` does."""

    def say(self, text: str, voice: str, speed: float = 1.0) -> np.ndarray: ...


def annotate(run: Path, out: Path, voice: SpeechSynthesis) -> None:
    """Write ``captions/`` and ``references/`` for the kept clips of a curation run, as the release takes them.

    Raises:
        FileNotFoundError: nothing has been curated yet.
    """
    curated, store = Store(run), Store(out)
    verdicts = curated.read_table(["verdicts.parquet"], ["key"], [("verdict", "=", "kept")])
    kept = set(verdicts["key"].to_pylist())
    clips = read_rows(curated, "clips", ["key", "source_uri"]).to_pylist()
    people = {row["key"]: p for row in clips if row["key"] in kept and (p := _person(row["source_uri"]))}
    store.write_table("captions/part.parquet", pa.Table.from_pylist([_atoms(*item) for item in people.items()]))
    takes = [take for item in people.items() for take in _takes(*item, voice)]
    store.write_table("references/part.parquet", pa.Table.from_pylist(takes))


def _person(uri: str) -> Person | None:
    """Who talks in a file of :func:`pipelines.demo_corpus.build`; None for real clips and for parts of a joined one."""
    name = uri.rsplit("/", 1)[-1]
    whole = (person for person in PEOPLE if name.startswith(person.name) and name.endswith("__keep.mp4"))
    return next(whole, None)


def _atoms(key: str, person: Person) -> dict[str, str]:
    says = f'{person.name} faces the camera and says: "{person.text}"'
    return {
        "key": key,
        "video_detailed": f"{person.name}, head and shoulders, faces the camera and talks without moving away.",
        "video_short": f"{person.name} talks.",
        "audio_caption": f"the voice {person.voice} in a silent room",
        "fused": says,
        "transcript": person.text,
        "language": "en",
    }


def _takes(key: str, person: Person, voice: SpeechSynthesis) -> Iterator[Mapping[str, Any]]:
    for take in range(REFERENCES):
        seed = hash64("demo reference", key, take) % 2**31
        draw, said, audio = random.Random(seed), [], np.zeros(0, np.float32)
        while len(audio) < SECONDS[0] * RATE:
            said += draw.sample(WORDS, 3)
            audio = voice.say(", ".join(said) + ".", person.voice)
        audio = audio[: round(SECONDS[1] * RATE)]
        made = {"text": ", ".join(said), "seed": seed, "duration_s": len(audio) / RATE, "tries": 1}
        model = {"model": "hexgrad/Kokoro-82M", "licence": "Apache-2.0"}
        yield {"key": key, "take": take, "audio": _wav(audio), **made, **model}


def _wav(audio: np.ndarray) -> bytes:
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        write_wav(file.name, audio, RATE)
        return Path(file.name).read_bytes()
