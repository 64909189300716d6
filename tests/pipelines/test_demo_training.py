"""From raw clips to samples, by the ordinary commands; what stands is not done again."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml

from curation.__main__ import main as curate
from perception.speech_synthesis import RATE
from pipelines import demo_training
from pipelines.demo_annotation import SECONDS, WORDS
from pipelines.demo_corpus import PEOPLE
from pipelines.demo_training import SAMPLES, train_release
from pipelines.tiny_world.release import write_release
from tests.media import factory
from unitalking_data.dataset import ClipDataset
from unitalking_data.decoders import decode_audio
from unitalking_data.manifest import read_manifest
from unitalking_data.storage import Store

CHANGES = ["steps=2", "batch=2", "data.durations_s=[]", "log.tensorboard=false"]


class Hum:
    """In place of a synthesiser, whose weights need a network: half a second a word."""

    def __init__(self, weights: object = None) -> None:
        pass

    def say(self, text: str, voice: str, speed: float = 1.0) -> np.ndarray:
        times = np.arange(len(text.split()) * RATE // 2) / RATE
        return (0.3 * np.sin(2 * np.pi * (200 + len(voice)) * times)).astype(np.float32)


@pytest.fixture
def curated(tmp_path) -> Path:
    """Three talkers, of which two are people of the demo; ``run/`` as the demo leaves it."""
    videos = tmp_path / "videos"
    videos.mkdir()
    for seed, name in enumerate(("ada__keep", "bea__keep", "stranger__keep")):
        frames, times, sound = factory.talker(2.0, seed=seed)
        factory.write(videos / f"{name}.mp4", frames, times, audio=sound)
    rule = {"reason": "muted", "score": "loudness.has_audio", "min": 1, "why": "test"}
    (tmp_path / "thresholds.yaml").write_text(yaml.safe_dump({"rules": [rule]}))
    content = {
        "root": str(tmp_path / "run"),
        "listing": {"inputs": [str(videos)]},
        "cut": {"min_s": 1, "max_s": 5},
        "source": {"name": "source", "stages": {"source": {"backend": "content"}}},
        "groups": [{"name": "scorers", "stages": {"loudness": {}}}],
        "thresholds": str(tmp_path / "thresholds.yaml"),
        "executor": {"kind": "local"},
    }
    (tmp_path / "curation.yaml").write_text(yaml.safe_dump(content))
    assert curate(["run", "--config", str(tmp_path / "curation.yaml")]) == 0
    return tmp_path


def test_raw_clips_become_samples(curated, monkeypatch, capsys):
    monkeypatch.setattr(demo_training, "CONFIG", curated / "curation.yaml")
    monkeypatch.setattr(demo_training, "demo", lambda *arguments: 0)  # tests/pipelines/test_demo_corpus.py has it
    monkeypatch.setattr(demo_training, "Speech", Hum)
    monkeypatch.setattr(demo_training, "resolve", lambda names: {})
    monkeypatch.setattr(demo_training, "train_release", partial(train_release, changes=CHANGES))
    assert demo_training.demo_training(curated, "local", [], print) == 0
    release = curated / "release" / "demo"
    assert read_manifest(Store(release)).clips == 3
    clips = ClipDataset(release, "train", columns=["transcript"])
    told = {clips.clip(n, 0)["transcript"]: clips.clip(n, 0) for n in range(3)}
    assert told.keys() == {None, *(person.text for person in PEOPLE[:2])}
    assert "ref.wav" not in told[None] and told[None]["prompt"] == ""
    ada = told[PEOPLE[0].text]
    assert PEOPLE[0].text in ada["prompt"] and ada["take"] in (0, 1, 2)
    assert SECONDS[0] <= decode_audio(ada["ref.wav"]).shape[1] / RATE <= SECONDS[1]
    said = Store(release).read_table(["refs/part-000000.parquet"]).to_pylist()
    assert len({row["text"] for row in said}) == 6 and set(said[0]["text"].split(", ")) <= set(WORDS)
    assert {path.name for path in (curated / "samples").glob("*.mp4")} == {f"{task}.mp4" for task in SAMPLES} | {
        "given.mp4"
    }
    capsys.readouterr()


def test_a_release_becomes_samples(tmp_path, capsys):
    write_release(str(tmp_path / "release" / "demo"), {"train": 6}, fps=24.0)
    said = []
    assert train_release(tmp_path, "local", said.append, CHANGES) == 0
    made = {task: tmp_path / "samples" / f"{task}.mp4" for task in SAMPLES}
    hashes = {task: hashlib.sha256(path.read_bytes()).digest() for task, path in made.items()}
    assert len(set(hashes.values())) == len(SAMPLES)
    assert all(str(path) in capsys.readouterr().out for path in [made["t2av"]])
    assert train_release(tmp_path, "local", said.append, CHANGES) == 0
    assert "stage 1 is trained" in said and "stage 2 is trained" in said
    assert hashes == {task: hashlib.sha256(path.read_bytes()).digest() for task, path in made.items()}
