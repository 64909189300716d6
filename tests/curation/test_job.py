"""Whole runs on every kind of bad input: each file ends as scored, refused or quarantined, and is counted."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from curation.__main__ import main
from media.encode import write_wav
from tests.media import factory

RULE = {"reason": "muted", "score": "loudness.has_audio", "min": 1, "why": "test"}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration of two cheap scorers over ``videos/``, in this process."""
    (tmp_path / "videos").mkdir()
    (tmp_path / "thresholds.yaml").write_text(yaml.safe_dump({"rules": [RULE]}))
    content = {
        "root": str(tmp_path / "run"),
        "listing": {"inputs": [str(tmp_path / "videos")]},
        "cut": {"min_s": 1, "max_s": 10},
        "source": {"name": "source", "stages": {"source": {"backend": "content"}}, "time_limit_s": 6},
        "groups": [{"name": "scorers", "stages": {"static": {}, "loudness": {}}, "batch_size": 4}],
        "thresholds": str(tmp_path / "thresholds.yaml"),
        "executor": {"kind": "local"},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "config.yaml"


def run(config: Path, *overrides: str, command: str = "run") -> int:
    return main([command, "--config", str(config), *(part for o in overrides for part in ("--set", o))])


def outcomes(config: Path) -> dict[str, str]:
    """Outcome of each source by file name; a kept or dropped clip's verdict where it has one clip."""
    root = config.parent / "run"
    files = {Path(row["uri"]).name: row["outcome"] for row in pq.read_table(root / "outcomes.parquet").to_pylist()}
    verdicts = {row["key"]: row["verdict"] for row in pq.read_table(root / "verdicts.parquet").to_pylist()}
    for clip in pq.read_table(root / "clips").to_pylist():
        files[Path(clip["source_uri"]).name] = verdicts[clip["key"]]
    return files


def test_every_kind_of_bad_input_is_counted(config: Path, capsys):
    videos = config.parent / "videos"
    frames, times, audio = factory.talker(2.0)

    def write(name: str, **options) -> Path:
        return factory.write(videos / name, frames, times, **{"audio": audio, **options})

    plain = write("plain.mp4")
    for name in ("with 'quotes' and \"more\".mp4", "new\nline.mp4", "<script>alert(1)<", "per%cent d.mp4", "a:b.mp4"):
        path = videos / (name if name.endswith(".mp4") else name + "script>.mp4".replace("/", ""))
        path.write_bytes(plain.read_bytes() + name.encode())  # other bytes, or they would be duplicates
    (videos / "copy.mp4").write_bytes(plain.read_bytes())
    (videos / "empty.mp4").touch()
    (videos / "text.mp4").write_text("this is not a video\n" * 100)
    factory.truncated(plain, videos / "truncated.mp4", 0.5)
    write_wav(videos / "audio only.mp4", np.zeros(8000, np.float32), 8000)
    write("no audio.mp4", audio=None)
    # other frames than the one without audio: a track without a packet may not reach the file at all
    factory.write(videos / "empty audio.mp4", frames[::-1], times, silent_track=True)
    factory.write(videos / "one frame.mp4", frames[:1], times[:1])
    factory.huge_header(videos / "huge.mp4")
    write("hevc 10 bit.mp4", codec="libx265", pixel_format="yuv420p10le", options={"x265-params": "log-level=none"})
    odd = [image[:95, :127] for image in frames]
    factory.write(videos / "odd.mp4", odd, times, pixel_format="yuv444p", audio=audio)
    write("rotated.mp4", rotation=90)
    uneven = factory.uneven(2.0)
    factory.write(videos / "variable.mp4", frames[: len(uneven)], uneven, audio=audio)
    fast = factory.regular(2, 120)
    factory.write(videos / "120 fps.mp4", [frames[int(t * 25) % len(frames)] for t in fast], fast, audio=audio)
    write("8 khz.mp4", audio=audio[:, ::6], audio_rate=8000)
    write("7.1.mp4", audio=np.repeat(audio, 8, axis=0))
    write("late audio.mp4", audio_start_s=1.0, audio=audio[:, :44_100])
    os.mkfifo(videos / "hangs.mp4")

    code = run(config, "executor.retry_budget=1")
    printed = capsys.readouterr().out
    found = outcomes(config)
    assert code == 0
    broken = {"empty.mp4", "text.mp4", "truncated.mp4", "audio only.mp4", "huge.mp4", "hangs.mp4"}
    assert {name for name, outcome in found.items() if outcome == "failed"} == broken
    assert found["copy.mp4"] != found["plain.mp4"] and "duplicate" in (found["copy.mp4"], found["plain.mp4"])
    assert found["one frame.mp4"] == "too_short"
    silent = {"no audio.mp4", "empty audio.mp4"}
    assert {name: found[name] for name in silent} == dict.fromkeys(silent, "dropped")
    rest = set(found) - broken - silent - {"copy.mp4", "plain.mp4", "one frame.mp4"}
    assert {name: found[name] for name in rest if found[name] != "kept"} == {} and len(rest) == 13
    total = len(list(videos.iterdir()))
    assert f"{total} sources in = {total - 8} kept + 2 dropped + 0 undecided + 6 quarantined" in printed
    quarantine = pq.read_table(config.parent / "run" / "quarantine" / "source.parquet").to_pylist()
    messages = {Path(row["source_uri"]).name: row["error"] for row in quarantine}
    assert set(messages) == broken and all(messages.values())
    page = (config.parent / "run" / "report" / "index.html").read_text()
    assert "<script>alert(1)<" not in page and "alert(1)" in page


def test_a_new_threshold_scores_nothing_again(config: Path, capsys):
    for seed in range(3):
        frames, times, audio = factory.talker(1.5, seed=seed)
        factory.write(config.parent / "videos" / f"{seed}.mp4", frames, times, audio=audio if seed else None)
    assert run(config) == 0
    assert "3 clips in = 2 kept + 1 dropped" in capsys.readouterr().out
    scores = {path: path.stat().st_mtime_ns for path in (config.parent / "run" / "scores").rglob("*.parquet")}
    (config.parent / "thresholds.yaml").write_text(yaml.safe_dump({"rules": [{**RULE, "min": 0}]}))
    assert run(config, command="select") == 0
    assert "3 clips in = 3 kept + 0 dropped" in capsys.readouterr().out
    assert scores == {path: path.stat().st_mtime_ns for path in (config.parent / "run" / "scores").rglob("*.parquet")}
    assert run(config, "cut.min_s=2", command="select") == 0, "a longer least length cuts again and scores nothing"
    assert "3 sources in = 0 kept + 3 dropped" in capsys.readouterr().out


def test_a_full_disk_stops_with_a_message_and_the_run_goes_on_afterwards(config: Path):
    frames, times, audio = factory.talker(1.5)
    factory.write(config.parent / "videos" / "a.mp4", frames, times, audio=audio)
    command = [sys.executable, "-m", "curation", "run", "--config", str(config)]

    def tight() -> None:  # no file may grow beyond what the listing needs: the score tables do not fit
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))

    full = subprocess.run(command, preexec_fn=tight, capture_output=True, text=True)
    assert full.returncode == 1
    assert "error: File too large" in full.stderr and "run again" in full.stderr and "Traceback" not in full.stderr
    assert not list((config.parent / "run").rglob(".*")), "nothing half-written is left"
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0 and "1 clips in = 1 kept" in again.stdout


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["listing.inputs=[nowhere/]"], "nowhere"),
        (["groups.scorers.stages.static.level=3"], "stage static: level: Extra inputs"),
        (["groups.scorers.stages.blur={}"], "no stage named 'blur'"),
        (["thresholds=absent.yaml"], "cannot read the configuration absent.yaml"),
        (["root=x", "rooot=y"], "rooot: Extra inputs"),
        (["groups.scorers.stages.lip_sync={backend: syncnet}"], "python -m kit.weights fetch"),
    ],
)
def test_a_users_mistake_is_named_before_any_work(config: Path, capsys, overrides, says):
    assert run(config, *overrides) == 2
    error = capsys.readouterr().err
    assert says in error and error.startswith("error: ")
    assert not (config.parent / "run").exists()


def test_a_listing_without_the_column_is_refused(config: Path, capsys):
    (config.parent / "list.csv").write_text("path,licence\na.mp4,CC0\n")
    assert run(config, f"listing.inputs=['{config.parent / 'list.csv'}']", "listing.columns={uri: video}") == 2
    error = capsys.readouterr().err
    assert "list.csv" in error and "video" in error and "path" in error


def test_plan_and_status_do_nothing(config: Path, capsys):
    frames, times, audio = factory.talker(1.5)
    factory.write(config.parent / "videos" / "a.mp4", frames, times, audio=audio)
    assert run(config, command="plan") == 0
    assert "listing: 1 sources" in capsys.readouterr().out and not (config.parent / "run").exists()
    assert run(config, command="status") == 2
    assert "run ingest first" in capsys.readouterr().err
    assert run(config) == 0
    capsys.readouterr()
    assert run(config, command="status") == 0
    assert "loudness" in capsys.readouterr().out
