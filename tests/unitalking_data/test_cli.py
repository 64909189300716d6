"""The command: what each verb prints, and the exit code and the one line of every kind of mistake and fault."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.unitalking_data import samples
from unitalking_data import __version__, cli
from unitalking_data.cli import main

COMMAND = [sys.executable, "-m", "unitalking_data"]


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """A release v1 of 40 clips; v2 beside it lacks the first of them."""
    root = tmp_path_factory.mktemp("published") / "v1"
    samples.build(root, samples.keys(0, 40), version="v1")
    samples.build(root.parent / "v2", samples.keys(1, 40), version="v2", previous=root)
    return root


def test_describe(published, capsys):
    assert main(["describe", str(published)]) == 0
    assert "release v1: 40 clips" in capsys.readouterr().out
    assert main(["describe", str(published), str(published.parent / "v2")]) == 0
    printed = capsys.readouterr().out
    assert "from v1 to v2: 39 clips unchanged" in printed
    assert f"1 withdrawn: {samples.keys(0, 1)[0]}" in printed and "1 rewritten, 0 new, 0 gone" in printed
    assert main(["describe", str(published), "nowhere"]) == 2


def test_sample(published, tmp_path, capsys):
    key = sorted(samples.keys(0, 40))[7]
    out = tmp_path / "clip"
    assert main(["sample", str(published), "--key", key, "--seed", "4", "--epoch", "2", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"key      {key}" in printed and f"prompt   short: clip {key[:4]} | <b>" in printed
    assert f"wrote 4 files to {out}" in printed
    assert {path.name for path in out.iterdir()} == {f"{key}.{name}" for name in ("mp4", "wav", "ref.wav", "json")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sample", "{root}", "--key", "nobody"], "error: no clip 'nobody' in train, val of {root}"),
        (["sample", "{root}", "--split", "val", "--key", "nobody"], "error: no clip 'nobody' in val of {root}"),
        (["sample", "{root}", "--split", "test"], "error: release v1 has no split 'test'; it has train, val"),
        (["sample", "{root}", "--split", "train", "--number", "-1"], "and no clip -1"),
        (["sample", "{root}", "--latents", "wan"], "error: {root} has no finished latents 'wan'"),
        (["sample", "{root}", "--key", "a", "--number", "1"], "not allowed with argument --key"),
        (["sample", "{root}", "--seed", "x"], "error: argument --seed: invalid int value: 'x'"),
        (["verify", "{root}/nothing"], "error: no manifest.json in {root}/nothing: not a release"),
        (["verify", "nowhere://x"], "error: Protocol not known: nowhere"),
        (["verify"], "error: the following arguments are required: RELEASE (see unitalking-data verify --help)"),
        (["check", "{root}"], "error: argument COMMAND: invalid choice: 'check'"),
        ([], "error: the following arguments are required: COMMAND (see unitalking-data --help)"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(published, capsys, arguments, message):
    try:
        code = main([argument.format(root=published) for argument in arguments])
    except SystemExit as end:
        code = end.code
    printed = capsys.readouterr()
    assert code == 2 and not printed.out
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
    assert message.format(root=published) in printed.err


def test_a_damaged_release_is_exit_code_1(tmp_path, capsys):
    samples.build(tmp_path, samples.keys(0, 20))
    shard = tmp_path / "media" / "train-000000.tar"
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    assert main(["sample", str(tmp_path)]) == 1
    assert "error: shard media/train-000000.tar" in capsys.readouterr().err
    shard.unlink()
    assert main(["sample", str(tmp_path)]) == 1
    assert "error: shard media/train-000000.tar is missing" in capsys.readouterr().err
    assert main(["verify", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert "media/train-000000.tar: missing" in printed.out and ": 1 problems" in printed.out
    (tmp_path / "media" / "train.index.parquet").write_bytes(b"PAR1 no")
    assert main(["describe", str(tmp_path), str(tmp_path)]) == 1


def test_a_fault_of_the_storage_is_exit_code_1(published, capsys, monkeypatch):
    def fail(*_, **__):
        raise OSError("the disk is gone")

    monkeypatch.setattr(cli, "verify", fail)
    assert main(["verify", str(published)]) == 1
    assert capsys.readouterr().err == "error: the disk is gone\n"


@pytest.mark.parametrize("verb", [[], ["verify"], ["describe"], ["sample"]])
def test_help_has_examples_and_exit_codes(verb, capsys):
    with pytest.raises(SystemExit) as end:
        main([*verb, "--help"])
    printed = capsys.readouterr().out
    assert end.value.code == 0
    assert f"  unitalking-data {' '.join(verb) or 'sample'} " in printed and "exit codes:" in printed


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"unitalking-data {__version__}\n"


def test_a_closed_pipe_is_quiet(published):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*COMMAND, "describe", str(published)], cwd=REPOSITORY, stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert done.returncode == 141 and not done.stderr


def test_an_interrupt_is_quiet(published, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "verify", interrupt)
    assert main(["verify", str(published)]) == 130
    assert capsys.readouterr() == ("", "")
