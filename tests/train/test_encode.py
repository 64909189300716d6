"""A release turned into latents: what is in them, what is refused, and that a kill costs nothing."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import wave
from pathlib import Path

import fsspec
import numpy as np
import pytest
import ray
import torch
import yaml

from kit.config import ConfigError
from model.codecs.build import build_audio_codec, build_video_codec
from model.codecs.statistics import LatentStatistics
from model.text import WordEncoder
from pipelines.tiny_world.release import write_release
from pipelines.tiny_world.world import make_clip
from tests.conftest import REPOSITORY
from tests.train.worlds import recipe
from train.config import DataConfig
from train.encode import encode, main
from train.encode_config import EncodeConfig
from train.encode_shard import Encoder, ReleaseReader, UnusableClip
from train.loading import open_loader, training_clips
from unitalking_data.dataset import ClipDataset
from unitalking_data.decoders import decode_video
from unitalking_data.manifest import read_manifest
from unitalking_data.storage import Store

CLIPS = {"train": 8, "test": 4}
SETTINGS = {
    "name": "small",
    "video_codec": {"kind": "linear", "spatial": 16, "temporal": 4, "channels": 48},
    "audio_codec": {"kind": "linear", "rate": 8000, "n_fft": 512, "hop": 200, "mels": 32, "channels": 16},
    "text_encoder": {"kind": "words", "length": 20, "width": 16},
    "prompt_style": "plain",
    "fps": 10.0,
    "sizes": [[32, 32], [64, 32]],
    "dtype": "float32",
    "statistics": {"clips": 8, "video": True, "audio": True, "audio_components": 8},
    "threads": 1,
    "executor": {"kind": "local"},
}


def write_world(root: Path) -> str:
    write_release(str(root), CLIPS, shard_clips=3)
    return str(root)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> str:
    return write_world(tmp_path_factory.mktemp("world") / "release")


def config(release: str, **changes) -> EncodeConfig:
    return EncodeConfig.model_validate({**SETTINGS, "release": release, **changes})


def said(line: str) -> None:
    pass


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def encoded(world) -> EncodeConfig:
    made = config(world)
    encode(made, said)
    return made


def test_latents_are_those_of_their_clip(world, encoded):
    manifest = read_manifest(Store(encoded.folder))
    assert {name: totals.clips for name, totals in manifest.splits.items()} == CLIPS
    clips = ClipDataset(world, "test", latents="small", prompts=None)
    statistics = {
        stream: LatentStatistics.load(Path(encoded.folder) / f"{stream}_statistics.json")
        for stream in ("video", "audio")
    }
    encoder = Encoder(encoded, statistics)
    media = ClipDataset(world, "test", prompts=None)
    for number in range(len(clips)):
        clip = media.clip(number, 0)
        tensors = LatentTensors(clips.clip(number, 0))
        about = json.loads(clips.clip(number, 0)["json"])
        assert tensors["video"].shape == (48, 5, 2, 2) and tensors["audio"].shape == (8, 34)
        frames = encoder.prepare({"mp4": clip["mp4"], "wav": clip["wav"]}, 10.0, 8000).video
        assert torch.equal(tensors["video"], encoder.encode_video(frames))
        truth = {c.key: c for c in (make_clip(0, "test", n) for n in range(4))}[clip["key"]]
        assert about["prompts"]["detailed"].count(truth.transcript) == 1 and about["prompts"]["null"] == ""
        words = WordEncoder(20, 16).encode([about["prompts"]["fused"]])[0]
        text = tensors["text.fused"]
        assert torch.equal(text, words[: len(text)]) and not words[len(text) :].any()
        assert tensors["text.null"].shape == (0, 16)
        assert all(tensors[f"ref{take}"].shape == (8, 40) for take in range(3))


class LatentTensors(dict):
    def __init__(self, content: dict) -> None:
        import safetensors.torch

        super().__init__(safetensors.torch.load(content["latents.safetensors"]))


def test_measured_statistics_normalise(world, encoded):
    cells = {"video": [], "audio": []}
    clips = ClipDataset(world, "train", latents="small", prompts=None)
    for number in range(len(clips)):
        tensors = LatentTensors(clips.clip(number, 0))
        for stream, found in cells.items():
            found.append(tensors[stream].flatten(1))
    for found in cells.values():
        whole = torch.cat(found, 1)
        deviation = whole.std(1, correction=0)
        moving = deviation > 1e-3  # a coefficient that never changes is left as it is
        assert moving.sum() >= 8 and whole.mean(1).abs().max() < 1e-3
        assert torch.allclose(deviation[moving], torch.ones(()), atol=1e-3)


def test_the_codecs_of_the_sampler_undo_them(world, encoded):
    latents = LatentTensors(ClipDataset(world, "test", latents="small", prompts=None).clip(0, 0))
    folder = Path(encoded.folder)
    video = build_video_codec(encoded.video_codec, LatentStatistics.load(folder / "video_statistics.json"))
    audio = build_audio_codec(encoded.audio_codec, LatentStatistics.load(folder / "audio_statistics.json"))
    assert read_manifest(Store(encoded.folder)).process["codecs"]["audio_codec"] == audio.fingerprint
    frames = video.decode(latents["video"][None])
    assert frames.shape == (1, 3, 17, 32, 32) and frames.abs().max() < 1.5
    assert audio.decode(latents["audio"][None]).shape[0] == 1


def test_the_trainer_reads_them(world, encoded):
    model = recipe(world, "unused").model.model_copy(
        update={"video_channels": 48, "audio_channels": 8, "text_len": 20, "text_dim": 16, "reference_len": 40}
    )
    clips = training_clips(
        DataConfig(release=world, latents="small"), model, split="train", streams=("video", "audio"), seed=0
    )
    clip = clips.clip(0, 0)
    assert clip["video"].shape == (48, 5, 2, 2) and clip["reference"].shape == (40, 8)


def test_clips_encoded_on_the_fly_are_the_same_samples(tmp_path, world):
    """Without measured statistics, which only stored latents have."""
    content = {**SETTINGS, "name": "plain", "statistics": {}}
    encode(config(world, **content), said)
    path = tmp_path / "encode.yaml"
    path.write_text(yaml.safe_dump({**content, "release": "another"}))
    changes = {"video_channels": 48, "audio_channels": 16, "text_len": 20, "text_dim": 16, "reference_len": 40}
    model = recipe(world, "unused").model.model_copy(update=changes)
    stored, on_the_fly = (
        training_clips(DataConfig(release=world, **source), model, split="train", streams=("video", "audio"), seed=5)
        for source in ({"latents": "plain"}, {"encode": str(path)})
    )
    for number in range(CLIPS["train"]):
        there, here = ({**clips.clip(number, 2)} for clips in (stored, on_the_fly))
        assert there["name"] == here["name"] and there["texts"].keys() == here["texts"].keys()
        for name in ("video", "audio", "reference", "null_text"):
            assert torch.equal(there[name], here[name]), name
        assert all(torch.equal(there["texts"][name], here["texts"][name]) for name in there["texts"])
    data = {"release": world, "workers": 1}  # a process that is spawned, for codecs on a GPU cannot be forked
    batches = [
        next(iter(open_loader(recipe(world, "unused", model=model.model_dump(), data=data | source), rank=0, world=1)))
        for source in ({"latents": "plain"}, {"encode": str(path)})
    ]
    assert batches[0].samples.names == batches[1].samples.names
    assert torch.equal(batches[0].samples.video, batches[1].samples.video)
    path.write_text(yaml.safe_dump({**SETTINGS, "release": world}))
    with pytest.raises(ValueError, match="measured statistics need"):
        training_clips(DataConfig(release=world, encode=str(path)), model, split="train", streams=("audio",), seed=0)


def test_a_finished_set_is_left_alone(encoded):
    before = contents(Path(encoded.folder))
    told = []
    encode(encoded, told.append)
    assert contents(Path(encoded.folder)) == before and "finished" in told[0]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"fps": 5.0}, r"\(settings\.fps: 10\.0 there, 5\.0 here\)"),
        ({"dtype": "bfloat16"}, r"\(settings\.dtype: "),
        ({"audio_codec": {**SETTINGS["audio_codec"], "mels": 40}}, r"\(codecs\.audio_codec: "),
        ({"text_encoder": {"kind": "words", "length": 20, "width": 8}}, r"\(codecs\.text_encoder: "),
        (
            {"statistics": {"clips": 5, "video": True, "audio": True, "audio_components": 8}},
            r"\(settings\.statistics\.clips: 8 there, 5 here\)",
        ),
    ],
)
def test_stale_latents_are_refused(encoded, change, told):
    before = contents(Path(encoded.folder))
    with pytest.raises(ConfigError, match=f"small holds other latents {told}"):
        encode(config(encoded.release, **change), said)
    assert contents(Path(encoded.folder)) == before


def test_finished_latents_that_lost_a_shard_are_not_called_finished(tmp_path):
    made = config(write_world(tmp_path / "release"), statistics={})
    encode(made, said)
    shard = Path(made.folder) / "train-000001.tar"
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=r"shard train-000001\.tar is missing"):
        encode(made, said)


def test_what_kills_leave_is_cleared(tmp_path, encoded):
    """Before the origin has its name, and between ``_SUCCESS`` and the end."""
    made = config(write_world(tmp_path / "release"))
    build = Path(made.folder) / "_build"
    build.mkdir(parents=True)
    (build / ".origin.json.0123abcd").write_text("{")
    encode(made, said)
    build.mkdir()
    (build / "origin.json").write_text("{}")
    encode(made, said)
    assert contents(Path(made.folder)) == contents(Path(encoded.folder))


def test_one_writes_at_a_time(encoded):
    with Store(encoded.folder).locked(), pytest.raises(ConfigError, match=r"another process writes to .*small"):
        encode(encoded, said)


def test_a_split_without_usable_clips_costs_no_other(world, monkeypatch):
    real = ReleaseReader.read

    def with_silent_tests(reader, places):
        for (key, members, row), place in zip(real(reader, places := list(places)), places, strict=True):
            yield key, {} if place.shard.split == "test" else members, row

    monkeypatch.setattr(ReleaseReader, "read", with_silent_tests)
    told = []
    manifest = encode(config(world, name="silent", statistics={}), told.append)
    assert list(manifest.splits) == ["train"] and manifest.rejected == {"broken": 4}
    assert (
        told[-1]
        == "no clip of split test could be encoded, so the latents have no such split; 4 times: it has no audio"
    )


def test_latents_of_another_release_are_refused(tmp_path, encoded):
    other = tmp_path / "release"
    write_release(str(other), CLIPS, seed=1, shard_clips=3)
    target = other / "latents" / "small"
    target.parent.mkdir()
    target.symlink_to(encoded.folder)
    with pytest.raises(ConfigError, match=r"other latents \(release: "):
        encode(config(str(other)), said)


def test_clips_with_too_few_frames_are_refused_by_name(world):
    with pytest.raises(
        ValueError, match=r"no clip of .* could be encoded; 12 times: it has 10 frames a second; 24 are needed"
    ):
        encode(config(world, name="fast", fps=24.0, statistics={}), said)
    with pytest.raises(ValueError, match=r"statistics: .* it has 10 frames a second; 24 are needed"):
        encode(config(world, name="faster", fps=24.0), said)


def test_what_makes_a_clip_unusable_is_said(world):
    encoder, clip = Encoder(config(world, statistics={})), ClipDataset(world, "test", prompts=None).clip(0, 0)
    whole = {"mp4": clip["mp4"], "wav": clip["wav"]}
    silence, short = wav_of(np.zeros(0)), wav_of(np.zeros(8000))
    for members, fps, words in (
        ({"wav": clip["wav"]}, 10.0, "no video"),
        ({"mp4": clip["mp4"]}, 10.0, "no audio"),
        (whole | {"mp4": b"no video"}, 10.0, "."),
        (whole | {"wav": b"no sound"}, 10.0, "."),
        (whole | {"wav": clip["wav"][:20]}, 10.0, "."),
        (whole | {"wav": silence}, 10.0, r"its audio lasts 0\.00 s, its video 1\.70 s"),
        (whole | {"wav": short}, 10.0, r"its audio lasts 1\.00 s, its video 1\.70 s"),
        (whole | {"ref1.wav": clip["ref.wav"][:20]}, 10.0, r"ref1\.wav: "),
        (whole | {"ref2.wav": silence}, 10.0, r"ref2\.wav: it has no samples"),
        (whole, None, "no fps"),
        (whole, 9.0, "9 frames a second; 10 are needed"),
        (whole, 200.0, "shorter than a frame"),  # its 17 frames last 0.085 s
    ):
        with pytest.raises(UnusableClip, match=words):
            encoder.prepare(members, fps, 8000)
    with pytest.raises(UnusableClip, match="no audio_rate"):
        encoder.prepare(whole, 10.0, None)


def wav_of(audio: np.ndarray) -> bytes:
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes((audio * 32767).astype("<i2").tobytes())
    return stream.getvalue()


@pytest.mark.parametrize("fps", [10.0 * 1000 / 1001, 10.0, 10.0 * 1001 / 1000])
def test_a_rate_passes_for_one_that_is_almost_the_same(world, fps):
    """23.976 for 24: frame by frame, none twice."""
    encoder, clip = Encoder(config(world, statistics={})), ClipDataset(world, "test", prompts=None).clip(0, 0)
    codec_input = encoder.prepare(clip, fps, 8000)
    assert np.array_equal(codec_input.video, decode_video(clip["mp4"]))


def test_all_frames_of_a_needed_rate_are_not_there_below_it(world):
    encoder, clip = Encoder(config(world, statistics={})), ClipDataset(world, "test", prompts=None).clip(0, 0)
    with pytest.raises(UnusableClip, match=r"9\.9 frames a second"):
        encoder.prepare(clip, 9.9, 8000)


def test_a_broken_clip_costs_no_other(world, monkeypatch):
    real, broken = ReleaseReader.read, []

    def with_a_cut_video(*arguments):
        for key, members, row in real(*arguments):
            if not broken:
                broken.append(key)
            yield key, members | {"mp4": members["mp4"][:300]} if key in broken else members, row

    monkeypatch.setattr(ReleaseReader, "read", with_a_cut_video)
    manifest = encode(config(world, name="cut", statistics={}), said)
    assert manifest.clips == sum(CLIPS.values()) - 1 and manifest.rejected == {"broken": 1}
    (row,) = Store(f"{world}/latents/cut").read_table(["rejected/part-000000.parquet"]).to_pylist()
    assert row["key"] == broken[0] and row["reasons"][0]


def test_killed_and_continued_is_undisturbed(tmp_path, world, encoded):
    path = tmp_path / "encode.yaml"
    other = write_world(tmp_path / "release")
    path.write_text(yaml.safe_dump({**SETTINGS, "release": other}))
    command = [sys.executable, "-m", "train.encode", "--config", str(path)]
    folder = Path(other) / "latents" / "small"
    for records in (1, 2):  # killed as soon as so many shards are done
        process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while len(list(folder.glob("_build/shard-*.parquet"))) < records and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not (folder / "_SUCCESS").exists()
    assert subprocess.run(command, cwd=REPOSITORY, capture_output=True).returncode == 0
    assert contents(folder) == contents(Path(encoded.folder))


def test_on_ray_the_bytes_are_the_same(tmp_path, encoded, monkeypatch):
    """And paths that are relative are relative to where the job is started."""
    other = write_world(tmp_path / "release")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    monkeypatch.chdir(tmp_path)
    on_ray = {"executor": {"kind": "ray"}, "workers": {"max_actors": 2}}
    try:
        encode(config("release", **on_ray), said)
        with pytest.raises(ConfigError, match=r"device: cuda is asked for and there is no GPU"):
            encode(config("release", **on_ray, device="cuda"), said)
        (tmp_path / "release" / "media" / "train-000000.tar").unlink()
        with pytest.raises(FileNotFoundError, match=r"shard media/train-000000\.tar is missing"):
            encode(config("release", **on_ray, name="again", statistics={}), said)
    finally:
        ray.shutdown()
    assert contents(Path(other) / "latents" / "small") == contents(Path(encoded.folder))


def test_in_a_bucket_the_bytes_are_the_same(tmp_path, world, encoded, bucket):
    store = fsspec.filesystem("s3")
    store.put(str(Path(world) / "media"), f"{bucket}/v1/media", recursive=True)
    store.put(str(Path(world) / "meta"), f"{bucket}/v1/meta", recursive=True)
    for name in ("manifest.json", "_SUCCESS"):
        store.put(str(Path(world) / name), f"{bucket}/v1/{name}")
    made = config(f"{bucket}/v1")
    encode(made, said)
    encode(made, said)
    store.get(made.folder, str(tmp_path / "small"), recursive=True)
    assert contents(tmp_path / "small") == contents(Path(encoded.folder))


def test_a_users_mistakes_exit_with_2(tmp_path, capsys):
    path = tmp_path / "encode.yaml"
    path.write_text(yaml.safe_dump({**SETTINGS, "release": str(tmp_path / "nowhere")}))
    assert main(["--config", str(path)]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert main(["--config", str(path), "--set", "colour=red"]) == 2
    assert "colour" in capsys.readouterr().err
