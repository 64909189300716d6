"""Fetching from a hub: resumed, redirected, refused in words, whole or not at all, pinned where no hash is known."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from kit import weights
from kit.weights import FetchError, WeightsError, cache, download, entries
from kit.weights.cache import weights_dir
from kit.weights.pins import LOCK, read_pins
from tests.conftest import REPOSITORY
from tests.kit.hub import COMMIT, serve

CONTENT = bytes(range(256)) * 64
OTHER = b"other" * 1000
REPO = "owner/name"
# A process of its own: the registry's file, then the models.
FETCH = """
import pathlib, sys
from kit.weights import entries, fetch
entries.REGISTRY_FILE = pathlib.Path(sys.argv[1])
for name in sys.argv[2:]:
    fetch(name)
"""


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def entry(**changes) -> dict:
    content = {"use": "test", "revision": "main", "licence": "MIT", "sources": [{"hub": REPO, "file": "net.bin"}]}
    return {k: v for k, v in {**content, "sha256": None, "bytes": None, **changes}.items() if v is not ...}


def folder(**hashes) -> dict:
    files = {"a.bin": {"sha256": None, "bytes": None}, "sub/b.bin": {"sha256": None, "bytes": None}}
    return entry(sources=[{"hub": REPO, "folder": "in"}], sha256=..., bytes=..., files=files | hashes)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with the file of the entries; no pause between attempts, an empty cache."""
    monkeypatch.setenv("UNITALKING_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(download, "PAUSES_S", (0.0, 0.0))
    with serve() as served:
        monkeypatch.setenv("HF_ENDPOINT", served.endpoint)
        served.files |= {f"{REPO}/net.bin": CONTENT, f"{REPO}/in/a.bin": CONTENT, f"{REPO}/in/sub/b.bin": OTHER}
        yield served


@pytest.fixture
def register(tmp_path, monkeypatch):
    """Makes a registry of these entries."""

    def register(**content: dict) -> Path:
        file = tmp_path / f"weights{len(list(tmp_path.glob('*.yaml')))}.yaml"
        file.write_text(yaml.safe_dump(content))
        monkeypatch.setattr(entries, "REGISTRY_FILE", file)
        return file

    return register


def left_over() -> list[str]:
    """Files of the cache besides the lock file and the models."""
    return [path.name for path in weights_dir().rglob(".*") if path.is_file() and path.name != f".{LOCK}.lock"]


def test_a_redirect_is_followed_and_the_file_is_recorded(hub, register, caplog):
    caplog.set_level("INFO")
    register(net=entry(sha256=sha256(CONTENT), bytes=len(CONTENT)))
    path = weights.fetch("net")
    assert path.read_bytes() == CONTENT and weights.resolve(["net"]) == {"net": path}
    (pin,) = read_pins(weights_dir()).values()
    assert (pin.sha256, pin.bytes, pin.commit, pin.source) == (sha256(CONTENT), len(CONTENT), COMMIT, f"{REPO}/net.bin")
    assert not left_over()
    said = caplog.text
    assert "net: 16.4 kB/16.4 kB, " in said and "/s, " in said and "pinned" not in said
    weights.fetch("net")
    assert len(hub.asked) == 2  # what is there is left alone


def test_a_cut_connection_is_taken_up_where_it_broke(hub, register):
    register(net=entry(sha256=sha256(CONTENT)))
    hub.cuts = [1000, 5000]
    assert weights.fetch("net").read_bytes() == CONTENT
    assert [headers.get("range") for headers in hub.requests("cdn")] == [None, "bytes=1000-", "bytes=6000-"]


def test_another_run_goes_on_where_one_gave_up(hub, register):
    register(net=entry())
    hub.cuts = [3000, 0, 0, 0]
    with pytest.raises(FetchError, match=r"broke after 3 kB of 16\.4 kB; 3 kB are there, run again to go on"):
        weights.fetch("net")
    assert weights.find("net") is None and read_pins(weights_dir()) == {}
    assert weights.fetch("net").read_bytes() == CONTENT
    assert hub.requests("cdn")[-1]["range"] == "bytes=3000-"
    assert not left_over()


def test_a_server_without_ranges_starts_again(hub, register):
    register(net=entry(sha256=sha256(CONTENT)))
    hub.cuts, hub.ranges = [5000], False
    assert weights.fetch("net").read_bytes() == CONTENT


def test_a_file_that_changed_meanwhile_is_not_patched_together(hub, register):
    register(net=entry())
    hub.cuts = [3000, 0, 0, 0]
    with pytest.raises(FetchError):
        weights.fetch("net")
    hub.files[f"{REPO}/net.bin"] = OTHER * 4
    assert weights.fetch("net").read_bytes() == OTHER * 4


def test_without_hash_and_version_nothing_is_continued(hub, register):
    register(net=entry())
    hub.cuts, hub.etags, hub.linked = [3000], False, False
    assert weights.fetch("net").read_bytes() == CONTENT
    assert [headers.get("range") for headers in hub.requests("cdn")] == [None, None]


def test_a_partial_file_that_is_whole_already_is_taken(hub, register):
    register(net=entry(sha256=sha256(CONTENT)))
    path = weights.cached_path("net")
    path.parent.mkdir(parents=True)
    path.with_name(f".{path.name}.partial").write_bytes(CONTENT)
    assert weights.fetch("net").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("refused", "said"),
    [
        ((404, "EntryNotFound"), "owner/name has no file net.bin at revision main \\(HTTP 404\\)"),
        ((404, "RevisionNotFound"), "owner/name has no revision main"),
        ((401, "RepoNotFound"), "no repository owner/name \\(HTTP 401\\); if it is private, set HF_TOKEN"),
        (
            (401, "GatedRepo"),
            "owner/name is gated \\(HTTP 401\\): accept its terms at http.*/owner/name and set HF_TOKEN",
        ),
        ((403, "GatedRepo"), "owner/name is gated \\(HTTP 403\\)"),
        ((403, ""), "HTTP 403 Forbidden for http.*; it may need a token"),
        ((500, ""), "HTTP 500 Internal Server Error from"),
    ],
)
def test_refusals_are_named_in_a_line(hub, register, refused, said):
    register(net=entry())
    hub.refused[REPO] = refused
    with pytest.raises(FetchError, match=f"could not fetch net: {REPO}/net.bin: {said}") as error:
        weights.fetch("net")
    assert "\n" not in str(error.value) and not left_over()


def test_a_host_that_cannot_be_reached_is_named(register, tmp_path, monkeypatch):
    monkeypatch.setenv("UNITALKING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    register(net=entry())
    with pytest.raises(FetchError, match=r"cannot reach 127\.0\.0\.1:9: .*refused"):
        weights.fetch("net")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sha256": "0" * 64}, f"what came has sha256 {sha256(CONTENT)}, the registry says {'0' * 64}"),
        ({"bytes": 17}, f"what came has bytes {len(CONTENT)}, the registry says 17"),
        ({"md5": "0" * 32}, "what came has md5 .*, the registry says 0{32}"),
    ],
)
def test_another_content_is_refused_and_leaves_nothing(hub, register, changes, said):
    register(net=entry(**changes))
    with pytest.raises(FetchError, match=said):
        weights.fetch("net")
    assert [path for path in weights_dir().rglob("*") if path.is_file()] == []


def test_a_short_body_is_refused(hub, register):
    register(net=entry())
    hub.states_less = 5  # of a file whose size the hub has told
    with pytest.raises(FetchError, match=f"what came has bytes {len(CONTENT) - 5}, the server says {len(CONTENT)}"):
        weights.fetch("net")
    assert not left_over()


def test_a_web_page_is_not_pinned_for_a_model(hub, register):
    register(net=entry(), known=entry(sha256=sha256(CONTENT)))
    hub.content_type = "text/html; charset=utf-8"
    with pytest.raises(FetchError, match="answers with a web page, not with a file"):
        weights.fetch("net")
    assert weights.fetch("known").read_bytes() == CONTENT


def test_a_killed_process_leaves_what_another_goes_on_with(hub, register):
    content = CONTENT * 200
    hub.files[f"{REPO}/net.bin"] = content
    file = register(net=entry(sha256=sha256(content)))
    hub.barrier = threading.Event()
    process = subprocess.Popen([sys.executable, "-c", FETCH, str(file), "net"], cwd=REPOSITORY)
    partial = weights.cached_path("net").with_name(".net-main.bin.partial")
    while not (partial.exists() and partial.stat().st_size):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    hub.barrier.set()
    there = partial.stat().st_size
    assert weights.find("net") is None
    assert weights.fetch("net").read_bytes() == content
    assert hub.requests("cdn")[-1]["range"] == f"bytes={there}-"


def test_a_token_goes_to_the_hub_alone_and_is_not_printed(hub, register, monkeypatch, capfd):
    register(net=entry(), gated=entry(sources=[{"hub": "owner/gated", "file": "net.bin"}]))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.refused["owner/gated"] = (403, "GatedRepo")
    weights.fetch("net")
    with pytest.raises(FetchError) as error:
        weights.fetch("gated")
    assert [headers["authorization"] for headers in hub.requests("hub")] == ["Bearer hf_secret"] * 2
    assert not any("authorization" in headers for headers in hub.requests("cdn"))
    assert "hf_secret" not in capfd.readouterr().err + str(error.value)


def test_sources_are_tried_in_order(hub, register):
    second = {"url": f"{hub.cdn}/{REPO}/net.bin"}
    register(net=entry(sources=[{"hub": "owner/gone", "file": "net.bin"}, second], sha256=sha256(CONTENT)))
    assert weights.fetch("net").read_bytes() == CONTENT
    (pin,) = read_pins(weights_dir()).values()
    assert pin.source == second["url"] and pin.commit is None


def test_a_disk_that_is_too_small_or_fills_up_is_named(hub, register, monkeypatch):
    register(net=entry())
    with monkeypatch.context() as patch:
        patch.setattr(download.shutil, "disk_usage", lambda path: SimpleNamespace(free=2000))
        with pytest.raises(FetchError, match=r"no space left on the disk of .* \(16.4 kB are needed and 2 kB free\)"):
            weights.fetch("net")

    def full(progress: object, count: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download.Progress, "add", full)
    with pytest.raises(FetchError, match=r"no space left on the disk of .*; make room, run again"):
        weights.fetch("net")


class TestPins:
    def test_the_first_fetch_pins_and_says_so(self, hub, register, caplog):
        caplog.set_level("INFO")
        register(net=entry())
        weights.fetch("net")
        assert f"net: no published hash: pinned sha256 {sha256(CONTENT)} at first fetch" in caplog.text
        lock = json.loads((weights_dir() / LOCK).read_text())
        assert lock["net-main.bin"] | {"mtime_ns": 0, "date": ""} == {
            "name": "net",
            "file": "",
            "sha256": sha256(CONTENT),
            "bytes": len(CONTENT),
            "mtime_ns": 0,
            "source": f"{REPO}/net.bin",
            "commit": COMMIT,
            "date": "",
        }

    def test_a_pinned_file_that_changed_is_an_error_before_a_run(self, hub, register):
        register(net=entry())
        path = weights.fetch("net")
        path.write_bytes(OTHER)
        for use in (weights.resolve, weights.locate, lambda names: weights.fetch(*names)):
            with pytest.raises(WeightsError, match=r"was pinned when it was first fetched .*delete it and fetch again"):
                use(["net"])
        path.unlink()
        assert weights.fetch("net").read_bytes() == CONTENT

    def test_a_publisher_who_changes_the_file_is_noticed(self, hub, register):
        register(net=entry())
        weights.fetch("net").unlink()
        hub.files[f"{REPO}/net.bin"] = OTHER
        with pytest.raises(FetchError, match=r"the lock file says .* remove 'net-main.bin' from the lock file"):
            weights.fetch("net")
        assert weights.find("net") is None
        (weights_dir() / LOCK).unlink()
        assert weights.fetch("net").read_bytes() == OTHER

    def test_a_file_from_before_the_lock_is_pinned_by_the_next_fetch(self, hub, register, caplog):
        caplog.set_level("INFO")
        register(net=entry())
        path = weights.cached_path("net")
        path.parent.mkdir(parents=True)
        path.write_bytes(OTHER)
        assert weights.resolve(["net"]) == {"net": path}
        assert weights.fetch("net").read_bytes() == OTHER and not hub.asked
        assert "pinned sha256" in caplog.text and not left_over()
        path.write_bytes(CONTENT)
        with pytest.raises(WeightsError, match="was in the cache"):
            weights.resolve(["net"])

    def test_the_registrys_hash_counts_more_than_the_locks(self, hub, register):
        register(net=entry())
        weights.fetch("net")
        register(net=entry(sha256=sha256(OTHER)))
        with pytest.raises(WeightsError, match=f"the registry says {sha256(OTHER)}"):
            weights.resolve(["net"])

    def test_a_broken_lock_file_is_named(self, hub, register):
        register(net=entry())
        weights.fetch("net")
        (weights_dir() / LOCK).write_text("{")
        with pytest.raises(WeightsError, match=r"weights\.lock\.json cannot be read .*restore it, or delete it"):
            weights.resolve(["net"])

    def test_a_large_file_is_read_again_only_where_it_looks_changed(self, hub, register, monkeypatch):
        register(net=entry())
        path = weights.fetch("net")
        monkeypatch.setattr(cache, "TRUSTED_BYTES", 0)
        monkeypatch.setattr(cache, "hash_of", lambda path: pytest.fail("read again"))
        weights.resolve(["net"])
        monkeypatch.undo()
        monkeypatch.setenv("UNITALKING_CACHE", str(path.parents[1]))
        register(net=entry())
        monkeypatch.setattr(cache, "TRUSTED_BYTES", 0)
        stat = path.stat()
        path.write_bytes(CONTENT[::-1])
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
        with pytest.raises(WeightsError, match="was pinned"):
            weights.resolve(["net"])


class TestFolders:
    def test_all_files_come_and_the_folder_is_found_whole(self, hub, register):
        register(pair=folder())
        assert weights.find("pair") is None
        path = weights.fetch("pair")
        assert path.name == "pair-main"
        assert (path / "a.bin").read_bytes() == CONTENT and (path / "sub/b.bin").read_bytes() == OTHER
        assert weights.resolve(["pair"]) == {"pair": path}
        assert set(read_pins(weights_dir())) == {"pair-main/a.bin", "pair-main/sub/b.bin"}

    def test_one_that_fails_leaves_the_others_and_the_next_fetch_goes_on(self, hub, register):
        register(pair=folder(**{"sub/b.bin": {"sha256": "0" * 64, "bytes": None}}))
        with pytest.raises(FetchError, match=r"could not fetch pair/sub/b\.bin: .*the registry says 0"):
            weights.fetch("pair")
        assert weights.find("pair") is None and weights.find("pair/a.bin").read_bytes() == CONTENT
        register(pair=folder())
        weights.fetch("pair")
        paths = [path for host, path, _ in hub.asked if host == "hub"]
        assert [path.rpartition("/")[2] for path in paths] == ["a.bin", "b.bin", "b.bin"]

    def test_one_file_can_be_had_alone(self, hub, register):
        register(pair=folder())
        assert weights.fetch("pair/sub") == weights.cached_path("pair") / "sub"
        assert weights.locate(["pair/sub/b.bin"]) == {"pair/sub/b.bin": weights.cached_path("pair/sub/b.bin")}
        with pytest.raises(WeightsError, match=r"missing model files:\n  pair: test"):
            weights.resolve(["pair"])
        with pytest.raises(WeightsError, match=r"pair has no file 'c\.bin'; it has a\.bin, sub/b\.bin"):
            weights.fetch("pair/c.bin")

    def test_a_url_that_ends_in_a_slash_is_a_folders(self, hub, register):
        register(pair=folder() | {"sources": [{"url": f"{hub.cdn}/{REPO}/in/"}]})
        assert (weights.fetch("pair") / "sub/b.bin").read_bytes() == OTHER


def test_two_threads_fetch_once(hub, register, caplog):
    caplog.set_level("INFO")
    register(net=entry())
    hub.barrier = threading.Event()
    found = []
    threads = [threading.Thread(target=lambda: found.append(weights.fetch("net").read_bytes())) for _ in range(2)]
    for thread in threads:
        thread.start()
    while not (weights_dir().exists() and "another process" in caplog.text):
        assert threads[0].is_alive() or threads[1].is_alive()
    hub.barrier.set()
    for thread in threads:
        thread.join(10)
    assert found == [CONTENT, CONTENT] and len(hub.requests("cdn")) == 1 and not left_over()


def test_two_processes_do_not_disturb_each_other(hub, register, tmp_path):
    """Both wait for a body that stands still; one fetches, the other finds what it fetched."""
    file = register(net=entry(), pair=folder())
    hub.barrier = threading.Event()
    command = [sys.executable, "-c", FETCH, str(file), "net", "pair"]
    processes = [subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    threading.Timer(1.0, hub.barrier.set).start()
    said = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert weights.find("net").read_bytes() == CONTENT and weights.find("pair") is not None
    assert len(hub.requests("cdn")) == 3 and not left_over()
    assert len(read_pins(weights_dir())) == 3
