from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
from pathlib import Path

import fsspec
import pytest

from unitalking_data.shard_cache import ShardCache

LOCAL = fsspec.filesystem("file")
SIZE = 1000


@pytest.fixture
def shards(tmp_path):
    """{name: (path, sha256)} of ten different shards."""
    found = {}
    for number in range(10):
        path = tmp_path / f"train-{number:06}.tar"
        path.write_bytes(random.Random(number).randbytes(SIZE))
        found[number] = (str(path), hashlib.sha256(path.read_bytes()).hexdigest())
    return found


def read(cache, shard, size=SIZE):
    path, sha256 = shard
    with cache.open(LOCAL, path, size=size, sha256=sha256) as stream:
        return stream.read()


def held(cache):
    return {path.stem for path in cache.folder.glob("*.tar")}


def test_a_second_opening_needs_no_source(tmp_path, shards):
    cache = ShardCache(tmp_path / "cache", 10 * SIZE)
    content = read(cache, shards[0])
    Path(shards[0][0]).unlink()
    assert read(cache, shards[0]) == content
    assert [path.name for path in cache.folder.iterdir() if path.suffix == ".part"] == []


def test_the_least_recently_opened_goes_first(tmp_path, shards):
    cache = ShardCache(tmp_path / "cache", 3 * SIZE)
    for number in (0, 1, 2, 0, 3):
        read(cache, shards[number])
        for place, path in enumerate(sorted(cache.folder.glob("*.tar"), key=lambda path: path.stat().st_mtime_ns)):
            os.utime(path, ns=(place, place))  # clocks of file systems are too coarse for a test
    assert held(cache) == {shards[number][1] for number in (0, 2, 3)}


def test_what_is_open_outlives_its_eviction(tmp_path, shards):
    cache = ShardCache(tmp_path / "cache", SIZE)
    path, sha256 = shards[0]
    with cache.open(LOCAL, path, size=SIZE, sha256=sha256) as stream:
        read(cache, shards[1])
        assert held(cache) == {shards[1][1]}
        assert hashlib.sha256(stream.read()).hexdigest() == sha256


@pytest.mark.parametrize("change", ["flipped", "short", "long"])
def test_a_damaged_download_is_an_error_that_names_the_shard(tmp_path, shards, change):
    path, sha256 = shards[4]
    content = bytearray(Path(path).read_bytes())
    content[500] ^= 1
    Path(path).write_bytes({"flipped": content, "short": content[:500], "long": content + b"x"}[change])
    cache = ShardCache(tmp_path / "cache", 10 * SIZE)
    with pytest.raises(ValueError, match=r"train-000004\.tar is damaged"):
        read(cache, (path, sha256))
    assert {path.suffix for path in cache.folder.iterdir()} == {".lock"}


def test_a_missing_shard_and_a_small_cache_are_errors(tmp_path, shards):
    Path(shards[5][0]).unlink()
    with pytest.raises(FileNotFoundError, match=r"train-000005\.tar"):
        read(ShardCache(tmp_path / "cache", 10 * SIZE), shards[5])
    with pytest.raises(ValueError, match=r"train-000006\.tar of 1,000 bytes does not fit a cache of 999 bytes"):
        read(ShardCache(tmp_path / "cache", 999), shards[6])


def test_a_download_whose_process_died_is_thrown_out(tmp_path, shards):
    cache = ShardCache(tmp_path / "cache", 2 * SIZE)
    (cache.folder / f"{'ab' * 32}.part").write_bytes(bytes(2 * SIZE))
    assert len(read(cache, shards[0])) == SIZE
    assert {path.suffix for path in cache.folder.iterdir()} == {".lock", ".tar"}


def hammer(folder, shards, seed, failures):
    cache, choice = ShardCache(folder, 3 * SIZE), random.Random(seed)
    for _ in range(150):
        shard = shards[choice.randrange(len(shards))]
        if hashlib.sha256(read(cache, shard)).hexdigest() != shard[1]:
            failures.put(shard)
        total = 0
        for path in cache.folder.iterdir():
            try:
                total += path.stat().st_size
            except FileNotFoundError:
                continue
        if total > 4 * SIZE:  # a listing is no snapshot: one shard may come as another goes
            failures.put(total)


def test_processes_share_it_within_its_limit(tmp_path, shards):
    context = multiprocessing.get_context("fork")
    failures = context.Queue()
    processes = [context.Process(target=hammer, args=(tmp_path / "cache", shards, n, failures)) for n in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert failures.empty()
    assert sum(path.stat().st_size for path in (tmp_path / "cache").iterdir()) <= 3 * SIZE
