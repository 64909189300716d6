"""The proof that training works fails where it should, and does nothing twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmarks import tiny_world
from benchmarks.tiny_world import ARMS, BARS, LONGER_BARS, print_ablations, print_bars, recipes_of
from kit.cli import parse

SMALL = ["--train", "48", "--test", "8", "--clips", "4", "--seeds", "5"]
SMALL += ["--set1", "steps=2", "batch=4", "--set2", "steps=2", "batch=4", "--set-sample", "steps=2"]
TEN = {key: bar for key, (_, _, bar) in BARS.items()}
THIRTY = TEN | LONGER_BARS
GOOD = {key: (bar or 0.0) - (0.01 if BARS[key][1] in ("<", "<=") else 0) for key, bar in THIRTY.items()}


def options(folder: Path, *arguments: str):
    return parsed("--folder", str(folder), "--release", str(folder / "release"), *arguments)


def parsed(*arguments: str):
    _, options = parse(tiny_world.PROGRAM, arguments)
    tiny_world.apply_minutes(options)
    return options


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run of two steps a stage, which meets no bar."""
    folder = tmp_path_factory.mktemp("runs")
    assert main(folder) == 1
    return folder


def main(folder: Path, *arguments: str) -> int:
    return tiny_world.main(["--folder", str(folder), "--release", str(folder / "release"), *SMALL, *arguments])


def stamps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (folder / "full" / "seed-5").glob("*.json")}


def test_what_is_finished_is_not_done_again(finished, capsys):
    before = stamps(finished)
    assert main(finished) == 1 and stamps(finished) == before
    assert "MISSED" in capsys.readouterr().out


def test_another_budget_needs_another_folder(finished, capsys):
    before = stamps(finished)
    assert main(finished, "--set2", "steps=3", "batch=4") == 2
    assert "stage2.steps: 2 there, 3 here): give another --folder" in capsys.readouterr().err
    assert stamps(finished) == before


def test_what_is_measured_otherwise_is_measured_again(finished, tmp_path):
    folder = tmp_path / "moved"  # which is no reason to train again
    shutil.copytree(finished, folder)
    before = stamps(folder)
    assert main(folder, "--clips", "2") == 1
    after = stamps(folder)
    assert after["trained.json"] == before["trained.json"] and after["measured.json"] > before["measured.json"]
    assert json.loads((folder / "full/seed-5/measured.json").read_text())["way"]["clips"] == 2


def test_more_clips_than_there_are_is_found_before_work_starts(tmp_path, capsys):
    assert main(tmp_path, "--clips", "9") == 2
    assert "--test 8, fewer than 9" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("bars", [TEN, THIRTY], ids=["ten", "thirty"])
def test_each_bar_can_be_missed_by_one_seed(bars, capsys):
    good = GOOD | {"t2av.sync": 0.95, "wall_s": 500.0}
    assert print_bars([good, good], {}, bars)
    assert "MISSED" not in capsys.readouterr().out
    for key, bar in bars.items():
        sign = BARS[key][1]
        if bar is None:
            continue
        worse = [bar - 0.01] if sign == ">=" else [bar + 0.01]
        worse += [-bar - 0.01] if sign in ("<", "within") else []
        for value in worse:
            assert not print_bars([good, good | {key: value}], {}, bars), (key, value)
            assert "MISSED" in capsys.readouterr().out


def test_the_ablations_are_printed_as_markdown(capsys):
    print_ablations({"full": [GOOD | {"tv2a.sync": 0.5}, GOOD | {"tv2a.sync": 0.7}]})
    head, rule, row = capsys.readouterr().out.strip().splitlines()
    assert head.count("|") == rule.count("|") == row.count("|") and "0.600 ± 0.141" in row and "0.50, 0.70" in row


def test_thirty_minutes_are_a_budget_of_their_own(tmp_path):
    ten, thirty = parsed(), parsed("--minutes", "30")
    assert ten.folder != thirty.folder
    steps = [[recipe.steps for recipe in recipes_of(o, ARMS["full"], 1, tmp_path).values()] for o in (ten, thirty)]
    assert steps == [[300, 1500], [600, 3600]]


def test_an_arm_changes_what_it_is_named_for(tmp_path):
    def changes(name: str) -> dict[int, list[str]]:
        full, arm = (recipes_of(options(tmp_path), ARMS[n], 1, tmp_path) for n in ("full", name))
        return {
            stage: [c.split(":")[0] for c in recipe.changes(full[stage].content())] for stage, recipe in arm.items()
        }

    assert changes("full") == {1: [], 2: []}
    assert changes("streams apart") == {1: [], 2: ["streams_apart"]}
    assert changes("literal RoPE") == {1: ["model.audio_rope"], 2: ["model.audio_rope"]}
    assert changes("without TV2A") == {1: [], 2: ["shares.tv2a"]}
    assert changes("without stage 1") == {2: ["steps", "init.audio"]}
    assert changes("without reference") == {stage: ["drop.text", "drop.reference", "drop.both"] for stage in (1, 2)}
    assert changes("independent noise") == {1: [], 2: ["noise.independent"]}


def test_without_reference_no_sample_hears_one_and_as_many_lose_their_text(tmp_path):
    full, without = (
        recipes_of(options(tmp_path), ARMS[name], 1, tmp_path)[2].drop for name in ("full", "without reference")
    )
    assert without.reference + without.both == 1
    assert without.text + without.both == pytest.approx(full.text + full.both)
