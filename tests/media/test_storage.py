"""Addresses other than paths: file://, memory:// and a real S3 server on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from moto.server import ThreadedMotoServer

from media.clip import MediaError
from media.decode import decode_clip
from media.probe import content_hash, probe
from tests.media import factory

ALL = frozenset({"frames", "stills", "audio"})
NAMES = ["plain.mp4", "with space & 'quotes'.mp4", "<script>.mp4", "100%25 #1.mp4"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    times = factory.regular(2, 25)
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return factory.write(path, factory.flashes(times, [1.2]), times, audio=factory.clicks(2, [1.2]))


@pytest.fixture(scope="module")
def bucket(clip) -> Iterator[str]:
    """URL of a bucket on a moto server, with the clip under every one of ``NAMES``."""
    import s3fs

    with pytest.MonkeyPatch.context() as patch:
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.setenv("no_proxy", "127.0.0.1")
        s3fs.S3FileSystem.clear_instance_cache()
        try:
            store = s3fs.S3FileSystem()
            store.mkdir("talks")
            for name in NAMES:
                store.pipe(f"talks/in/{name}", clip.read_bytes())
            store.pipe("talks/in/empty.mp4", b"")
            store.pipe("talks/in/text.mp4", b"not a video" * 100)
            yield "s3://talks/in"
        finally:
            s3fs.S3FileSystem.clear_instance_cache()
            server.stop()


def assert_same(url: str, clip: Path) -> None:
    assert probe(url) == probe(str(clip))
    assert content_hash(url) == content_hash(str(clip))
    theirs, ours = decode_clip(url, 0.4, 1.6, needs=ALL), decode_clip(str(clip), 0.4, 1.6, needs=ALL)
    assert theirs.frames.tobytes() == ours.frames.tobytes()
    assert theirs.audio.tobytes() == ours.audio.tobytes()
    assert theirs.bytes_read > 0


@pytest.mark.parametrize("name", NAMES)
def test_s3(bucket, clip, name):
    assert_same(f"{bucket}/{name}", clip)


def test_s3_refusals(bucket):
    with pytest.raises(MediaError, match="no such file"):
        probe(f"{bucket}/absent.mp4")
    with pytest.raises(MediaError, match="empty"):
        probe(f"{bucket}/empty.mp4")
    with pytest.raises(MediaError, match="not a video file"):
        decode_clip(f"{bucket}/text.mp4", 0.0, 1.0, needs=ALL)


def test_s3_without_a_server_is_not_the_files_fault(bucket, monkeypatch):
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        with pytest.raises(OSError):
            probe(f"{bucket}/plain.mp4")
    finally:
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize("name", NAMES)
def test_memory(clip, name):
    url = f"memory://talks/{name}"
    with fsspec.open(url, "wb") as out:
        out.write(clip.read_bytes())
    assert_same(url, clip)


def test_file_url(tmp_path, clip):
    path = tmp_path / "a b.mp4"
    path.write_bytes(clip.read_bytes())
    assert_same(path.as_uri(), clip)


def test_unknown_scheme():
    with pytest.raises(MediaError, match="not a path or URL"):
        probe("nosuch://bucket/a.mp4")
