"""The stage that opens each source, on local files and on a real S3 server on loopback."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import fsspec
import numpy as np
import pyarrow as pa
import pytest
import torch
from moto.server import ThreadedMotoServer

from curation.ingest.cut import CutConfig, cut
from curation.ingest.listing import Columns, ListingConfig, ListingError, list_sources
from curation.ingest.shots import ShotConfig
from curation.ingest.source import SourceStage, small_frames
from engine.items import Clip, Source, from_table
from engine.stage import Failure, Outcome, Value
from media.encode import write_video
from tests.media.scenes import talking_head


@pytest.fixture(scope="module")
def stage() -> SourceStage:
    stage = SourceStage(ShotConfig(backend="content"))
    stage.setup({})
    return stage


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``cut.mp4`` (two scenes, audio), ``head.mp4`` (one scene) and ``copy.mp4``, the same bytes as the latter."""
    folder = tmp_path_factory.mktemp("media")
    audio = np.random.default_rng(0).normal(0, 0.05, 16000 * 8).astype(np.float32)
    write_video(folder / "cut.mp4", talking_head(1, 100) + talking_head(2, 90), 25, audio=audio, audio_rate=16000)
    write_video(folder / "head.mp4", talking_head(3, 90), 25)
    (folder / "copy.mp4").write_bytes((folder / "head.mp4").read_bytes())
    return folder


def measure(stage: SourceStage, *uris: object) -> list[Outcome]:
    return stage.score([Source.of(str(uri)) for uri in uris])


def probed(stage: SourceStage, sources: pa.Table) -> pa.Table:
    """What the ledger would give to the cut: the sources with their status and values."""
    rows = []
    for source, outcome in zip(sources.to_pylist(), stage.score(list(from_table(sources, Source))), strict=True):
        values = outcome.values if isinstance(outcome, Value) else dict.fromkeys(stage.values.names)
        rows.append(source | {"status": "value" if isinstance(outcome, Value) else "failed"} | dict(values))
    schema = pa.schema([*sources.schema, pa.field("status", pa.string()), *stage.values])
    return pa.Table.from_pylist(rows, schema=schema)


def test_values_fit_the_schema_and_say_what_the_file_is(stage: SourceStage, media: Path) -> None:
    (outcome,) = measure(stage, media / "cut.mp4")
    assert isinstance(outcome, Value)
    assert set(outcome.values) == set(stage.values.names)
    pa.Table.from_pylist([dict(outcome.values)], schema=stage.values)
    values = outcome.values
    data = (media / "cut.mp4").read_bytes()
    assert values["content"] == hashlib.sha256(data).hexdigest()
    assert values["size_bytes"] == len(data)
    assert (values["width"], values["height"], values["rotation"]) == (160, 120, 0)
    assert values["fps"] == pytest.approx(25) and values["duration_s"] == pytest.approx(7.6, abs=0.05)
    assert (values["audio_tracks"], values["audio_rate"], values["audio_channels"]) == (1, 16000, 1)
    first, second = values["shots"]
    assert first["end_s"] == second["start_s"] == pytest.approx(4.0, abs=0.08)
    assert all(field.metadata[b"description"] for field in stage.values)


def test_the_default_stage_finds_the_cut_with_the_network(media: Path, weights: Callable[..., dict[str, Path]]) -> None:
    torch.set_num_threads(1)
    stage = SourceStage()
    stage.setup(weights(*stage.weights()))
    (outcome,) = measure(stage, media / "cut.mp4")
    assert [shot["start_s"] for shot in outcome.values["shots"]] == pytest.approx([0, 4], abs=0.08)


def test_a_variable_frame_rate_is_cut_by_its_timestamps(stage: SourceStage, tmp_path: Path) -> None:
    path = tmp_path / "variable.mkv"
    frames = talking_head(1, 60) + talking_head(2, 60)
    stamps = np.concatenate([np.arange(60) * 100, 6000 + np.arange(60) * 40])  # 10 fps, then 25 fps
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"crf": "18"})
        video.width, video.height, video.pix_fmt = 160, 120, "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        for stamp, image in zip(stamps.tolist(), frames, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode())
    (outcome,) = measure(stage, path)
    assert outcome.values["variable_rate"] is True
    assert [shot["start_s"] for shot in outcome.values["shots"]] == pytest.approx([0, 6.0], abs=0.01)
    assert [time for time, _ in small_frames(str(path))] == pytest.approx((stamps / 1000).tolist(), abs=1e-3)


def test_bad_files_are_failures_that_name_them_and_cost_no_other(
    stage: SourceStage, media: Path, tmp_path: Path
) -> None:
    whole = (media / "head.mp4").read_bytes()
    contents = {"empty.mp4": b"", "text.mp4": b"hello\n" * 400, "no head.mp4": whole[len(whole) // 2 :]}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    with av.open(str(tmp_path / "audio.m4a"), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    names = [*contents, "audio.m4a", "absent.mp4"]
    *bad, good = measure(stage, *(tmp_path / name for name in names), media / "head.mp4")
    assert isinstance(good, Value)
    for name, outcome in zip(names, bad, strict=True):
        assert isinstance(outcome, Failure) and outcome.kind == "media", name
        assert name in outcome.message


def test_a_file_that_breaks_off_ends_where_it_breaks_off(stage: SourceStage, tmp_path: Path) -> None:
    path = tmp_path / "broken.mp4"
    write_video(path, talking_head(3, 150), 25)
    data = path.read_bytes()
    path.write_bytes(data[: round(0.6 * len(data))])
    (outcome,) = measure(stage, path)
    assert isinstance(outcome, Value)
    assert outcome.values["duration_s"] == pytest.approx(6, abs=0.1)
    assert 1 < outcome.values["shots"][-1]["end_s"] < 5


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_a_failure(stage: SourceStage, media: Path, tmp_path: Path) -> None:
    path = tmp_path / "secret.mp4"
    path.write_bytes((media / "head.mp4").read_bytes())
    path.chmod(0)
    (outcome,) = measure(stage, path)
    assert isinstance(outcome, Failure) and "secret.mp4" in outcome.message


def test_the_storage_failing_is_no_fault_of_the_file(
    stage: SourceStage, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("curation.ingest.source.content_hash", full)
    (outcome,) = measure(stage, media / "head.mp4")
    assert outcome == Failure("io", f"'{media}/head.mp4': [Errno 28] No space left on device")


def test_a_folder_becomes_clips_and_every_source_is_accounted_for(
    stage: SourceStage, media: Path, tmp_path: Path
) -> None:
    for name in ("cut", "head", "copy"):
        (tmp_path / f"{name}.mp4").write_bytes((media / f"{name}.mp4").read_bytes())
    (tmp_path / "broken <script>\n.mp4").write_text("no video")
    write_video(tmp_path / "short.mp4", talking_head(7, 30), 25)
    sources = list_sources(ListingConfig(inputs=(str(tmp_path),), licence="CC0-1.0"))
    clips, outcomes = cut(probed(stage, sources), CutConfig(), "v1")
    named = {Path(row["uri"]).name: row for row in outcomes.to_pylist()}
    assert {name: row["outcome"] for name, row in named.items()} == {
        "copy.mp4": "clips",
        "cut.mp4": "clips",
        "head.mp4": "duplicate",
        "broken <script>\n.mp4": "failed",
        "short.mp4": "too_short",
    }
    assert named["head.mp4"]["duplicate_of"] == named["copy.mp4"]["key"]
    lengths = [(Path(clip.source_uri).name, round(clip.duration_s, 1)) for clip in from_table(clips, Clip)]
    assert lengths == [("copy.mp4", 3.6), ("cut.mp4", 4.0), ("cut.mp4", 3.6)]
    assert {clip.licence for clip in from_table(clips, Clip)} == {"CC0-1.0"}


@pytest.fixture(scope="module")
def bucket(media: Path) -> Iterator[str]:
    """A bucket on a real S3 server on loopback, holding the three files and a table of them."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    credentials = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    s3 = fsspec.get_filesystem_class("s3")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**credentials, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
            patch.setenv(name, value)
        s3.clear_instance_cache()
        store = fsspec.filesystem("s3")
        store.mkdir("ingest-videos")
        for path in media.glob("*.mp4"):
            store.pipe_file(f"ingest-videos/deep/a {path.name}", path.read_bytes())
        rows = [{"file": f"a {name}.mp4", "by": by} for name, by in (("cut", "Zoë"), ("head", None), ("gone", "x"))]
        store.pipe_file("ingest-videos/deep/table.jsonl", "\n".join(map(json.dumps, rows)).encode())
        yield "s3://ingest-videos"
        s3.clear_instance_cache()
    server.stop()


def test_s3_end_to_end(stage: SourceStage, media: Path, bucket: str) -> None:
    for listing in (bucket, f"{bucket}/deep/*.mp4"):
        sources = list_sources(ListingConfig(inputs=(listing,)))
        assert sources["uri"].to_pylist() == [f"{bucket}/deep/a {name}.mp4" for name in ("copy", "cut", "head")]
    remote = measure(stage, *sources["uri"].to_pylist())
    local = measure(stage, *(media / f"{name}.mp4" for name in ("copy", "cut", "head")))
    assert remote == local

    table = list_sources(ListingConfig(inputs=(f"{bucket}/deep/table.jsonl",), columns=Columns(uri="file")))
    clips, outcomes = cut(probed(stage, table), CutConfig(), "v1")
    assert outcomes["outcome"].to_pylist() == ["clips", "failed", "clips"]
    assert [json.loads(clip.provenance)["by"] for clip in from_table(clips, Clip)] == ["Zoë", "Zoë", None]


def test_s3_faults_are_named(stage: SourceStage, bucket: str) -> None:
    (gone,) = measure(stage, f"{bucket}/deep/gone.mp4")
    assert isinstance(gone, Failure) and gone.kind == "media" and "gone.mp4" in gone.message
    fsspec.filesystem("s3").pipe_file("ingest-videos/text.mp4", b"no video at all")
    (text,) = measure(stage, f"{bucket}/text.mp4")
    assert isinstance(text, Failure) and text.kind == "media" and f"{bucket}/text.mp4" in text.message
    with pytest.raises(ListingError, match="s3://absent"):
        list_sources(ListingConfig(inputs=("s3://absent/folder",)))
