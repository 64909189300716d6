"""Shards: the same bytes every time, keys that readers agree on, and samples found by themselves."""

from __future__ import annotations

import hashlib
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitalking_data.shard import (
    ShardError,
    check_key,
    pack,
    parse_shard_name,
    read_sample,
    shard_name,
    unpack,
    walk,
    write_shard,
)
from unitalking_data.storage import Store

KEYS = st.text("abcXYZ019_-", min_size=1, max_size=64)
MEMBERS = st.dictionaries(st.sampled_from(["mp4", "wav", "ref0.wav", "json"]), st.binary(max_size=1500), min_size=1)


@given(st.dictionaries(KEYS, MEMBERS, max_size=6))
def test_what_is_written_is_read(tmp_path_factory, samples):
    root = tmp_path_factory.mktemp("shard")
    store = Store(root)
    written = write_shard(store, "s.tar", [pack(key, members) for key, members in samples.items()])
    data = (root / "s.tar").read_bytes()
    assert len(data) == written.bytes and hashlib.sha256(data).hexdigest() == written.sha256
    assert len(data) % tarfile.RECORDSIZE == 0
    with tarfile.open(root / "s.tar") as tar:
        found = {member.name: tar.extractfile(member).read() for member in tar}
    assert found == {f"{key}.{name}": data for key, members in samples.items() for name, data in members.items()}
    for place in written.places:
        run = read_sample(store, "s.tar", place).data
        assert unpack(run, "s") == samples[place.key]
        assert {key for key, *_ in walk(run, "s")} == {place.key}


@pytest.mark.parametrize("key", ["", "a.b", "a/b", "a b", "..", "ä", "a\n", "x" * 65])
def test_keys_that_readers_would_not_agree_on(key):
    with pytest.raises(ValueError, match="cannot name files"):
        check_key(key)


@pytest.mark.parametrize("extension", ["", "MP4", ".mp4", "a/b", "mp4.", "a b"])
def test_extensions(extension):
    with pytest.raises(ValueError, match="extension"):
        pack("key", {extension: b""})


def test_a_sample_without_members_and_a_key_twice(tmp_path):
    with pytest.raises(ValueError, match="no members"):
        pack("key", {})
    with pytest.raises(ValueError, match="clip a is given twice"):
        write_shard(Store(tmp_path), "s.tar", [pack("a", {"txt": b""})] * 2)
    assert not list(tmp_path.iterdir())


def test_names():
    assert parse_shard_name("media/train-000012.tar") == ("train", 12)
    assert shard_name("val", 3) == "val-000003.tar"
    for wrong in ("train-12.tar", "train.tar", "Train-000001.tar", "train-000001.tar.gz"):
        with pytest.raises(ValueError, match="not the name of a shard"):
            parse_shard_name(wrong)


def test_damaged_runs():
    run = pack("key", {"mp4": bytes(600), "json": b"{}"}).data
    for damaged in (run[:512], run[:700], run[:-700], b"x" * 512):
        with pytest.raises(ShardError, match="shard 7"):
            unpack(damaged, "shard 7")
    with pytest.raises(ShardError, match="stands twice"):
        unpack(run + run, "shard 7")
    with pytest.raises(ShardError, match="members of one sample"):
        unpack(run + pack("other", {"txt": b""}).data, "shard 7")
