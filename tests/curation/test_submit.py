"""``ray job submit`` against a real Ray head: the promised way to run the job on a cluster."""

from __future__ import annotations

import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from media.encode import write_video

REPOSITORY = Path(__file__).resolve().parents[2]
RAY = str(Path(sys.executable).with_name("ray"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def head(tmp_path_factory, monkeypatch):
    """A Ray head with its dashboard on loopback, in a folder of its own; its HTTP address."""
    folder = tmp_path_factory.mktemp("r")
    names = ("port", "dashboard-port", "dashboard-agent-listen-port", "ray-client-server-port")
    ports = {name: free_port() for name in names}
    command = [RAY, "start", "--head", "--num-cpus=2", "--block", f"--temp-dir={folder}", "--dashboard-host=127.0.0.1"]
    command += [f"--{name}={port}" for name, port in ports.items()]
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield f"http://127.0.0.1:{ports['dashboard-port']}"
    process.terminate()
    process.wait(timeout=60)


def test_a_submitted_job_curates(head, tmp_path: Path):
    rng = np.random.default_rng(0)
    (tmp_path / "videos").mkdir()
    noise = rng.integers(0, 255, (100, 64, 96, 3), np.uint8)
    write_video(tmp_path / "videos" / 'it\'s "one".mp4', noise, 25, audio=rng.normal(0, 0.1, 64_000), audio_rate=16_000)
    (tmp_path / "videos" / "broken.mp4").write_text("not a video")
    config = {
        "root": str(tmp_path / "run"),
        "listing": {"inputs": [str(tmp_path / "videos")]},
        "source": {"name": "source", "stages": {"source": {"backend": "content"}}},
        "groups": [{"name": "scorers", "stages": {"static": {}, "loudness": {}}}],
        "thresholds": str(tmp_path / "thresholds.yaml"),
        "executor": {"kind": "ray", "address": "auto"},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    rule = {"reason": "muted", "score": "loudness.has_audio", "min": 1, "why": "a clip without sound teaches no speech"}
    (tmp_path / "thresholds.yaml").write_text(yaml.safe_dump({"rules": [rule]}))

    command = [RAY, "job", "submit", "--address", head, "--working-dir", str(REPOSITORY), "--"]
    command += [sys.executable, "-m", "curation", "run", "--config", str(tmp_path / "config.yaml")]
    for _ in range(20):  # the dashboard takes some seconds to answer
        job = subprocess.run(command, capture_output=True, text=True, timeout=240)
        if "Failed to connect" not in job.stdout + job.stderr:
            break
        time.sleep(2)
    assert job.returncode == 0, job.stdout + job.stderr
    assert "2 sources in = 1 kept + 0 dropped + 0 undecided + 1 quarantined" in job.stdout
    assert pq.read_table(tmp_path / "run" / "verdicts.parquet")["verdict"].to_pylist() == ["kept"]
    assert (tmp_path / "run" / "report" / "index.html").exists()
