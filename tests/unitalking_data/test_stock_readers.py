"""One release read by the tools that other teams have, from a folder and from an object store, without our code."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.fs
import pytest
import webdataset
import yaml
from webdataset.gopen import gopen_schemes

from media.encode import write_video, write_wav
from pipelines.release.card import write_documents
from tests.unitalking_data import samples
from unitalking_data.dataset import ClipDataset
from unitalking_data.decoders import DECODERS
from unitalking_data.loader import ClipLoader
from unitalking_data.schema import meta_schema
from unitalking_data.writer import ClipFiles, ReleaseWriter

SPLITS = ("train", "val")
KEYS = [f"train_{n:04}" for n in range(12)]
EXTENSIONS = {"mp4", "wav", "json", "ref0.wav", "ref1.wav", "ref2.wav"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A release of real videos, each with its audio and three references: 12 clips in 3 shards, 3 others."""
    scratch, root = tmp_path_factory.mktemp("media"), tmp_path_factory.mktemp("release")
    frames = np.random.default_rng(0).integers(0, 255, (8, 48, 64, 3), np.uint8)
    audio = np.sin(np.arange(5_333) / 20).astype(np.float32)
    write_video(scratch / "clip.mp4", frames, 24, audio=audio, audio_rate=16_000)
    write_wav(scratch / "clip.wav", audio, 16_000)
    video, wav = (scratch / "clip.mp4").read_bytes(), (scratch / "clip.wav").read_bytes()
    media = samples.MEDIA | {"frames": 8, "duration_s": 8 / 24, "width": 64, "height": 48}

    def make(keys):
        for _ in keys:
            yield ClipFiles({"mp4": video, "wav": wav} | {f"ref{take}.wav": wav for take in range(3)}, media)

    keys = [*KEYS, "val_0000", "val_0001", "val_0002"]
    plan = {"key": keys, "split": [key.split("_")[0] for key in keys], "fingerprint": keys}
    writer = ReleaseWriter(str(root), meta_schema())
    for shard in writer.begin("v1", pa.table(plan), splits=SPLITS, shard_clips=4, process={"title": "t", "limits": []}):
        writer.write(shard, samples.rows(shard.keys), make, samples.refs(shard.keys))
    writer.finish([], documents=write_documents)
    return root


@pytest.fixture(params=["path", "s3"])
def root(request, folder) -> str:
    if request.param == "path":
        return str(folder)
    url = f"{request.getfixturevalue('bucket')}/release"
    fsspec.filesystem("s3").put(str(folder), url, recursive=True)
    return url


def names(root: str, pattern: str) -> list[str]:
    """Full paths or URLs of the release's files."""
    fs, base = fsspec.core.url_to_fs(root)
    return sorted(fs.unstrip_protocol(name) if root.startswith("s3") else name for name in fs.glob(f"{base}/{pattern}"))


def open_file(url: str, mode: str = "rb", bufsize: int = 0):
    return fsspec.open(url, mode).open()


def test_webdataset(root, monkeypatch):
    monkeypatch.setitem(gopen_schemes, "s3", open_file)  # its way to learn a new protocol
    shards = names(root, "media/train-*.tar")
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode())
    assert len(shards) == 3 and sorted(sample["__key__"] for sample in samples) == KEYS
    assert all(sample["json"]["key"] == sample["__key__"] for sample in samples)
    assert all(set(sample) >= EXTENSIONS for sample in samples)


def test_this_loader(root):
    clips = ClipDataset(root, "train", decoders=DECODERS, columns=["language"])
    samples = [sample for batch in ClipLoader(clips, batch=5, epochs=1) for sample in batch.samples]
    assert sorted(sample["key"] for sample in samples) == KEYS
    for sample in samples:
        assert sample["mp4"].shape == (8, 48, 64, 3) and sample["wav"].shape == (1, 5_333)
        assert np.abs(sample["ref.wav"][0] - np.sin(np.arange(5_333) / 20)).max() < 1e-4
        assert sample["language"] == "en" and sample["json"]["key"] == sample["key"]
        assert sample["prompt"] == f"clip {sample['key'][:4]} | <b>"


def test_pyarrow(root):
    fs, base = fsspec.core.url_to_fs(root)
    rows = pyarrow.dataset.dataset(f"{base}/meta", filesystem=pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(fs)))
    train = rows.to_table(filter=pyarrow.dataset.field("split") == "train").sort_by("key")
    assert train["key"].to_pylist() == KEYS
    assert b"description" in rows.schema.field("video_short").metadata


def test_duckdb(root):
    connection = duckdb.connect()
    if root.startswith("s3"):
        connection.register_filesystem(fsspec.filesystem("s3"))
    query = "select split, count(*), avg(duration_s), min(key) from read_parquet($1) group by split order by split"
    found = connection.execute(query, [f"{root}/meta/*.parquet"]).fetchall()
    assert found == [("train", 12, pytest.approx(1 / 3), KEYS[0]), ("val", 3, pytest.approx(1 / 3), "val_0000")]


def test_pandas(root):
    import pandas

    frame = pandas.concat([pandas.read_parquet(name) for name in names(root, "meta/*.parquet")])
    assert sorted(frame[frame.split == "train"].key) == KEYS


@pytest.fixture
def hugging_face(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    import datasets

    datasets.disable_progress_bars()
    return datasets


def test_hugging_face_parquet(root, hugging_face, tmp_path):
    rows = hugging_face.load_dataset(
        "parquet", data_files=f"{root}/meta/*.parquet", split="train", cache_dir=str(tmp_path)
    )
    assert sorted(rows.filter(lambda row: row["split"] == "train")["key"]) == KEYS


def test_hugging_face_webdataset(root, folder, hugging_face, tmp_path):
    def load(root: str, **how):
        tars = {"train": names(root, "media/train-*.tar")}
        return hugging_face.load_dataset("webdataset", data_files=tars, split="train", cache_dir=str(tmp_path), **how)

    features = load(str(folder), streaming=True).features
    assert isinstance(features["mp4"], hugging_face.Video) and isinstance(features["wav"], hugging_face.Audio)
    # media as bytes: to decode them, or to hand them on as what they are, it wants torchcodec installed
    plain = dict.fromkeys(EXTENSIONS - {"json"}, hugging_face.Value("binary"))
    # from a bucket without streaming: version 5.2 hands s3fs an option that it does not know
    clips = list(load(root, features=hugging_face.Features(features | plain), streaming=not root.startswith("s3")))
    assert sorted(clip["__key__"] for clip in clips) == KEYS
    assert all(clip["json"]["key"] == clip["__key__"] and set(clip) >= EXTENSIONS for clip in clips)


ENERGON = """
import sys
from megatron.energon import WorkerConfig, get_savable_loader, get_val_dataset, stateless
from megatron.energon.task_encoder import Cooker, DefaultTaskEncoder

@stateless
def cook(sample):
    return sample

class Task(DefaultTaskEncoder):
    cookers = [Cooker(cook)]

    @stateless
    def batch(self, samples):
        return samples

alone = WorkerConfig(rank=0, world_size=1, num_workers=0)
clips = get_val_dataset(sys.argv[1], split_part=sys.argv[2], worker_config=alone, batch_size=5, task_encoder=Task())
for batch in get_savable_loader(clips):
    for sample in batch:
        names = sorted(name for name in sample if not name.startswith("_"))
        print(sample["__key__"].rpartition("/")[2], sample["json"]["key"], names)
"""


def test_energon(folder, request, tmp_path, root):
    """Prepared by its own command, which writes its index beside the shards: on a copy."""
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    if root.startswith("s3"):
        bucket = root.removeprefix("s3://").partition("/")[0]
        options = {"base_path": bucket, "endpoint_url": os.environ["AWS_ENDPOINT_URL"], "region_name": "us-east-1"}
        keys = {"access_key": "test", "secret_key": "test"}
        profile = {
            "storage_provider": {"type": "s3", "options": options},
            "credentials_provider": {"type": "S3Credentials", "options": keys},
        }
        (tmp_path / "msc.yaml").write_text(yaml.safe_dump({"profiles": {"loopback": profile}}))
        environment["MSC_CONFIG"] = str(tmp_path / "msc.yaml")
        path = "msc://loopback/release"
    else:
        path = str(shutil.copytree(folder, tmp_path / "copy"))
    prepare = [sys.executable, "-c", "from megatron.energon.cli.main import main; main()", "prepare", path]
    parts = [f"--split-parts={split}:media/{split}-.*\\.tar" for split in SPLITS]
    settings = ["--non-interactive", "--no-progress", "--sample-type=CrudeWebdataset", "--num-workers=1"]
    done = subprocess.run([*prepare, *settings, *parts], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    read = [sys.executable, "-c", ENERGON, path, "train"]
    found = subprocess.run(read, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert found.returncode == 0, found.stderr[-3000:]
    assert sorted(found.stdout.splitlines()) == [f"{key} {key} {sorted(EXTENSIONS)}" for key in KEYS]
