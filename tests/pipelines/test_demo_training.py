"""From a release to samples, by the ordinary commands; what stands is not done again."""

from __future__ import annotations

import hashlib

from pipelines.demo_training import SAMPLES, train_release
from pipelines.tiny_world.release import write_release


def test_a_release_becomes_samples(tmp_path, capsys):
    write_release(str(tmp_path / "release" / "demo"), {"train": 6}, fps=24.0)
    changes = ["steps=2", "batch=2", "data.durations_s=[]", "log.tensorboard=false"]
    said = []
    assert train_release(tmp_path, "local", said.append, changes) == 0
    made = {task: tmp_path / "samples" / f"{task}.mp4" for task in SAMPLES}
    hashes = {task: hashlib.sha256(path.read_bytes()).digest() for task, path in made.items()}
    assert len(set(hashes.values())) == len(SAMPLES)
    assert all(str(path) in capsys.readouterr().out for path in [made["t2av"]])
    assert train_release(tmp_path, "local", said.append, changes) == 0
    assert "stage 1 is trained" in said and "stage 2 is trained" in said
    assert hashes == {task: hashlib.sha256(path.read_bytes()).digest() for task, path in made.items()}
