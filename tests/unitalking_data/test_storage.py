"""Files under a root appear whole or not at all, and never outside it."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from unitalking_data.storage import Store

TABLE = pa.table({"key": ["a", "b"], "n": [1, 2]})


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path: Path) -> Store:
    return Store(tmp_path / "run" if request.param == "local" else f"memory://{tmp_path.name}")


def test_tables_come_back(store):
    store.write_table("scores/x/part-1.parquet", TABLE)
    store.write_table("scores/x/part-2.parquet", TABLE.append_column("more", pa.array([0.5, None])))
    assert store.files("scores/x") == ["scores/x/part-1.parquet", "scores/x/part-2.parquet"]
    table = store.read_table(store.files("scores/x"))
    assert table["more"].to_pylist() == [None, None, 0.5, None]
    assert store.folders("scores") == ["x"] and store.folders("absent") == []


@pytest.mark.parametrize("name", ["../up", "a/../../up", "/etc/passwd"])
def test_a_path_cannot_leave_the_root(store, name):
    with pytest.raises(ValueError, match="leaves the folder"):
        store.write_bytes(name, b"")


def test_partial_files_are_not_listed(tmp_path: Path):
    store = Store(tmp_path)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / ".part-1.parquet.deadbeef").write_bytes(b"half")
    assert store.files("d") == []


def test_a_killed_writer_leaves_the_old_file(tmp_path: Path):
    """SIGKILL of a process that rewrites one file for ever: what stands there is always one of its versions."""
    code = (
        "import sys; from unitalking_data.storage import Store; s = Store(sys.argv[1])\n"
        "while True:\n  for letter in b'abc': s.write_bytes('f', bytes([letter]) * 3_000_000)"
    )
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
        while not (tmp_path / "f").exists():
            time.sleep(0.01)
        time.sleep(0.05)
        writer.kill()
        writer.wait()
        content = (tmp_path / "f").read_bytes()
        assert len(content) == 3_000_000 and len(set(content)) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, the device that is always full")
def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path, monkeypatch):
    def full(self, *args, **kwargs):
        return os.fdopen(os.open("/dev/full", os.O_WRONLY), "wb")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match="No space left"):
        Store(tmp_path).write_bytes("f", b"x" * 100_000)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_fails_while_it_is_written_is_not_there(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(RuntimeError), store.writing("a/b.tar") as path:
        path.write_bytes(b"half")
        raise RuntimeError
    assert store.walk() == []


def test_adopting_a_file_links_it(tmp_path):
    old, new = Store(tmp_path / "old"), Store(tmp_path / "new")
    old.write_bytes("a/b.tar", b"bytes")
    for _ in range(2):  # again over itself, as a continued build does
        new.adopt(old, "a/b.tar")
    assert (tmp_path / "old/a/b.tar").samefile(tmp_path / "new/a/b.tar")
    assert new.walk() == ["a/b.tar"]
    old.write_bytes("a/b.tar", b"other")  # a rename, so that the link keeps what it had
    assert new.read_bytes("a/b.tar") == b"bytes"


def test_adopting_a_file_where_no_link_is_possible_copies_it(tmp_path, monkeypatch):
    old, new = Store(tmp_path / "old"), Store(tmp_path / "new")
    old.write_bytes("a", b"bytes")

    def refuse(*_):
        raise OSError("Invalid cross-device link")

    monkeypatch.setattr("unitalking_data.storage.os.link", refuse)
    new.adopt(old, "a")
    assert new.read_bytes("a") == b"bytes" and not (tmp_path / "old/a").samefile(tmp_path / "new/a")


def test_only_partial_files_are_removed(tmp_path):
    store = Store(tmp_path)
    for name in ("a/.b.tar.0123abcd", "a/b.tar", "a/.hidden", ".nv-meta/x"):
        store.write_bytes(name, b"")
    store.remove_partial_files()
    assert store.walk() == [".nv-meta/x", "a/.hidden", "a/b.tar"]


def test_part_of_a_file(tmp_path):
    store = Store(tmp_path)
    store.write_bytes("a", bytes(range(100)))
    assert store.read_range("a", 10, 3) == bytes([10, 11, 12])
    assert store.read_range("a", 98, 10) == bytes([98, 99])


def test_a_root_has_one_at_a_time(tmp_path):
    store = Store(tmp_path / "new")
    with store.locked(), pytest.raises(BlockingIOError), Store(tmp_path / "new").locked():
        pass
    with store.locked():
        pass


def test_a_file_system_without_locks_is_written_to_without(tmp_path, monkeypatch):
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with Store(tmp_path).locked():
        pass


def test_partial_files_of_a_folder_that_others_write_are_left(tmp_path):
    store = Store(tmp_path)
    for folder in ("latents/small", "latentsx"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / ".a.tar.0123abcd").write_text("half")
    store.remove_partial_files(but="latents")
    assert store.walk() == ["latents/small/.a.tar.0123abcd"]
