"""The loader on an object store: by ranges and through a cache, in workers, and when a shard is not what it was."""

from __future__ import annotations

import fsspec
import pytest

from tests.unitalking_data.releases import write_release
from unitalking_data.buckets import Buckets
from unitalking_data.dataset import ClipDataset
from unitalking_data.loader import ClipLoader
from unitalking_data.shard import ShardError

SPLITS = {"train": [7, 3, 9, 5, 6]}


@pytest.fixture
def release(tmp_path, bucket):
    """(the same release in a folder, its URL)"""
    write_release(str(tmp_path / "local"), SPLITS, encoder="tiny")
    fsspec.filesystem("s3").put(str(tmp_path / "local"), f"{bucket}/v1", recursive=True)
    return tmp_path / "local", f"{bucket}/v1"


def batches(loader):
    return [batch.samples for batch in loader]


@pytest.mark.parametrize("latents", [None, "tiny"])
@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_the_same_clips_come_from_a_bucket(release, tmp_path, latents, cached, workers):
    local, url = release
    how = {"batch": 4, "seed": 2, "epochs": 1, "buckets": Buckets(aspects=(1, 2))}
    expected = batches(ClipLoader(ClipDataset(local, "train", latents=latents), **how))
    cache = {"cache": tmp_path / "cache", "cache_bytes": 100_000} if cached else {}
    remote = ClipDataset(url, "train", latents=latents, **cache)
    assert batches(ClipLoader(remote, workers=workers, **how)) == expected
    if cached:
        held = [path.stat().st_size for path in (tmp_path / "cache").glob("*.tar")]
        assert 0 < sum(held) <= 100_000


def test_a_shard_is_downloaded_once_and_then_read_from_disk(release, tmp_path):
    _, url = release
    clips = ClipDataset(url, "train", cache=tmp_path / "cache")
    first = [clips[n] for n in range(7)]
    fsspec.filesystem("s3").rm(f"{url}/media/train-000000.tar")
    assert [clips[n] for n in range(7)] == first


def test_faults_name_the_shard(release, tmp_path):
    local, url = release
    data = bytearray((local / "media/train-000002.tar").read_bytes())
    data[700] ^= 1
    fs = fsspec.filesystem("s3")
    fs.pipe_file(f"{url}/media/train-000002.tar", bytes(data))
    with pytest.raises(ShardError, match=r"shard media/train-000002\.tar .* damaged"):
        ClipDataset(url, "train")[10]
    with pytest.raises(ShardError, match=r"shard .*media/train-000002\.tar is damaged"):
        ClipDataset(url, "train", cache=tmp_path / "cache")[18]
    clips = ClipDataset(url, "train")
    fs.rm(f"{url}/media/train-000003.tar")
    with pytest.raises(FileNotFoundError, match=r"shard media/train-000003\.tar is missing"):
        clips[19]
    with pytest.raises(FileNotFoundError, match=r"shard media/train-000003\.tar is missing"):
        ClipDataset(url, "train")
