"""Cutting is a pure function: its invariants hold for any sources."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from curation.ingest.cut import OUTCOMES, TOLERANCE_S, CutConfig, cut
from engine.items import Clip, clip_key, from_table, schema_of
from engine.stage import INTERVALS

SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("key", "uri", "licence", "provenance", "segments", "status", "content")]
    + [("duration_s", pa.float64()), ("fps", pa.float64())]
    + [(name, pa.int64()) for name in ("width", "height", "audio_rate")]
    + [("shots", INTERVALS)]
)


def source(name: str, cuts: list[float], **columns: Any) -> dict[str, Any]:
    """A probed source whose shots end at ``cuts``, the last of which is its duration."""
    shots = [{"start_s": a, "end_s": b} for a, b in zip([0.0, *cuts], cuts, strict=False)]
    defaults = {"licence": "CC0-1.0", "provenance": f'{{"name": "{name}"}}', "segments": "", "status": "value"}
    measured = {"content": f"content of {name}", "duration_s": cuts[-1], "fps": 25.0, "width": 640, "height": 480}
    return defaults | measured | {"key": f"key {name}", "uri": name, "audio_rate": 48000, "shots": shots} | columns


def failed(name: str) -> dict[str, Any]:
    nothing = dict.fromkeys(("content", "duration_s", "fps", "width", "height", "audio_rate", "shots"))
    return source(name, [10.0]) | nothing | {"status": "failed"}


def run(*sources: dict[str, Any], splitter: str = "v1", **config: Any) -> tuple[list[Clip], dict[str, dict[str, Any]]]:
    clips, outcomes = cut(pa.Table.from_pylist(list(sources), schema=SCHEMA), CutConfig(**config), splitter)
    assert clips.schema.equals(schema_of(Clip))
    return list(from_table(clips, Clip)), {row["uri"]: row for row in outcomes.to_pylist()}


def times(clips: list[Clip]) -> list[tuple[float, float]]:
    return [(round(clip.start_s, 3), round(clip.end_s, 3)) for clip in clips]


def test_a_short_video_is_one_clip_with_everything_copied() -> None:
    (clip,), outcomes = run(source("a.mp4", [7.25]))
    assert times([clip]) == [(0, 7.25)]
    assert clip.key == clip_key("content of a.mp4", 0, 7.25, "v1")
    assert (clip.source_uri, clip.width, clip.height, clip.fps, clip.audio_rate) == ("a.mp4", 640, 480, 25.0, 48000)
    assert (clip.licence, clip.provenance) == ("CC0-1.0", '{"name": "a.mp4"}')
    assert outcomes["a.mp4"] == {
        "key": "key a.mp4", "uri": "a.mp4", "outcome": "clips", "clips": 1, "duplicate_of": None
    }  # fmt: skip


def test_a_long_shot_is_divided_evenly() -> None:
    assert times(run(source("a", [25.0]))[0]) == [(0, 8.333), (8.333, 16.667), (16.667, 25)]
    assert times(run(source("a", [10.0]))[0]) == [(0, 10)]
    # 11 s into clips of 6 to 10 s: two halves would be too short.
    assert times(run(source("a", [11.0]), min_s=6)[0]) == [(0, 10)]


def test_a_frame_is_left_out_on_either_side_of_a_cut() -> None:
    assert times(run(source("a", [5.0, 9.0]))[0]) == [(0, 4.96), (5.04, 9)]
    assert times(run(source("a", [5.0, 9.0]), margin_frames=0)[0]) == [(0, 5), (5, 9)]
    assert times(run(source("a", [5.0, 9.0], fps=0.0))[0]) == [(0, 5), (5, 9)]


def test_a_bound_kept_as_float32_does_not_cost_a_clip() -> None:
    late = float(np.float32(5000.1)), float(np.float32(5003.1))
    clips, _ = run(source("a", [*late, 5003.2]), margin_frames=0, max_s=5000.2)
    assert times(clips)[-1] == (round(late[0], 3), round(late[1], 3))


def test_every_source_ends_in_one_outcome() -> None:
    sources = [
        source("c", [5.0], content="same"),
        source("b", [5.0], content="same"),
        source("d", [2.9]),
        source("e", [2.0, 4.0, 6.0]),
        failed("a"),
        failed("f"),
    ]
    clips, outcomes = run(*sources)
    assert [clip.source_uri for clip in clips] == ["b"]
    found = {uri: row["outcome"] for uri, row in outcomes.items()}
    assert found == {"a": "failed", "b": "clips", "c": "duplicate", "d": "too_short", "e": "too_short", "f": "failed"}
    assert {uri: row["duplicate_of"] for uri, row in outcomes.items() if row["duplicate_of"]} == {"c": "key b"}


def test_listed_segments_are_kept_within_shots_with_their_own_provenance() -> None:
    segments = [[1, 8, {"text": "é"}], [5.5, 30, {"n": 2}], [9, 9.5, {}]]
    clips, _ = run(source("a", [5.0, 12.0], segments=json.dumps(segments)), source("b", [4.0]))
    assert times(clips) == [(1, 4.96), (5.5, 12), (0, 4)]
    assert [json.loads(clip.provenance) for clip in clips] == [{"text": "é"}, {"n": 2}, {"name": "b"}]


def test_overlapping_segments_never_give_one_clip_twice() -> None:
    clips, outcomes = run(source("a", [6.0], segments="[[0, 7, {}], [0, 8, {}]]"))
    assert times(clips) == [(0, 6)]
    assert outcomes["a"]["clips"] == 1


def test_nothing_at_all_and_only_failures() -> None:
    assert run() == ([], {})
    clips, outcomes = run(failed("a"))
    assert not clips and outcomes["a"]["outcome"] == "failed"


def test_keys_depend_on_content_interval_and_splitter_alone() -> None:
    first, _ = run(source("a", [8.0], content="x"))
    moved, _ = run(source("b", [8.0], content="x", licence="other"))
    other, _ = run(source("a", [8.0], content="x"), splitter="v2")
    assert first[0].key == moved[0].key != other[0].key


def test_settings_that_contradict_each_other_are_refused() -> None:
    for wrong in ({"min_s": 5, "max_s": 4}, {"min_s": 0}, {"margin": 1}):
        with pytest.raises(ValidationError):
            CutConfig(**wrong)


lengths = st.lists(st.floats(0.1, 60), min_size=1, max_size=6)
fps = st.sampled_from([12.5, 23.976, 25.0, 60.0])
many = st.lists(st.tuples(lengths, fps, st.integers(0, 3), st.booleans()), min_size=1, max_size=6)
configs = st.tuples(st.floats(0.5, 8), st.floats(0, 10), st.integers(0, 2)).map(
    lambda c: {"min_s": c[0], "max_s": c[0] + c[1], "margin_frames": c[2]}
)


@settings(deadline=None, max_examples=150)
@given(many, configs, st.randoms(use_true_random=False))
def test_invariants(drawn: list[tuple[list[float], float, int, bool]], config: dict[str, Any], random: Any) -> None:
    sources = []
    for index, (shots, rate, content, broken) in enumerate(drawn):
        name = f"{index}.mp4"
        ends = [float(end) for end in np.cumsum(shots)]
        sources.append(failed(name) if broken else source(name, ends, fps=rate, content=f"content {content}"))
    clips, outcomes = run(*sources, **config)

    shuffled = random.sample(sources, len(sources))
    assert run(*shuffled, **config) == (clips, outcomes)

    assert len({clip.key for clip in clips}) == len(clips)
    assert set(outcomes) == {row["uri"] for row in sources}
    assert all(row["outcome"] in OUTCOMES for row in outcomes.values())
    assert sum(row["clips"] for row in outcomes.values()) == len(clips)
    by_key = {row["key"]: row for row in outcomes.values()}
    low, high = config["min_s"], config["max_s"]
    for row in sources:
        outcome = outcomes[row["uri"]]
        own = [clip for clip in clips if clip.source_uri == row["uri"]]
        assert outcome["clips"] == len(own)
        assert (outcome["outcome"] == "failed") == (row["status"] == "failed")
        if outcome["outcome"] == "duplicate":
            original = next(other for other in sources if other["key"] == outcome["duplicate_of"])
            assert original["content"] == row["content"] and original["uri"] < row["uri"]
            assert by_key[outcome["duplicate_of"]]["outcome"] in ("clips", "too_short")
        if outcome["outcome"] not in ("clips", "too_short"):
            assert not own
            continue
        margin = config["margin_frames"] / row["fps"]
        for shot in row["shots"]:
            left = shot["start_s"] + (margin if shot["start_s"] > 0 else 0)
            right = shot["end_s"] - (margin if shot["end_s"] < row["duration_s"] else 0)
            inside = [c for c in own if left - TOLERANCE_S <= c.start_s and c.end_s <= right + TOLERANCE_S]
            own = [clip for clip in own if clip not in inside]
            assert all(low - 2 * TOLERANCE_S <= clip.duration_s <= high + 2 * TOLERANCE_S for clip in inside)
            assert all(a.end_s <= b.start_s + 1e-6 for a, b in pairwise(inside))
            # No choice of clips could cover more: all of a shot where that divides, else as many full ones as fit.
            length = right - left
            pieces = int(np.ceil(length / high)) if length > 0 else 0
            best = length if pieces and length / pieces >= low else max(pieces - 1, 0) * high
            covered = sum(clip.duration_s for clip in inside)
            assert (
                covered == pytest.approx(best, abs=0.01) or abs(length - low) < 0.01 or _near_a_step(length, low, high)
            )
        assert not own  # none crosses a shot's bound


def _near_a_step(length: float, low: float, high: float) -> bool:
    """Whether rounding alone decides into how many clips a shot is divided."""
    return any(abs(length - count * bound) < 0.02 for count in range(130) for bound in (low, high))
