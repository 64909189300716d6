"""Which code and which machine made a result."""

from __future__ import annotations

import subprocess

import pytest

from kit import provenance
from kit.provenance import code_revision, machine


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with one commit, in place of this one."""
    monkeypatch.setattr(provenance, "REPOSITORY", tmp_path)
    code_revision.cache_clear()
    git(tmp_path, "init", "--quiet")
    (tmp_path / "a.py").write_text("1\n")
    git(tmp_path, "add", "a.py")
    git(tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "a")
    yield tmp_path
    code_revision.cache_clear()


def git(folder, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True).stdout


def test_the_revision_is_the_commit(checkout):
    assert code_revision() == git(checkout, "rev-parse", "HEAD").strip()


def test_changes_are_told(checkout):
    (checkout / "a.py").write_text("2\n")
    assert code_revision().endswith("+changes")


def test_outside_a_checkout_nothing_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "REPOSITORY", tmp_path / "nowhere")
    code_revision.cache_clear()
    assert code_revision() == "unknown"
    code_revision.cache_clear()


def test_a_machine_is_one_line():
    assert "cores" in machine() and "Python 3." in machine() and "\n" not in machine()
