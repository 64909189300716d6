from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from curation.report.gallery import choose, one_by_one, spans, sparkline, tiles
from curation.report.thumbnails import ClipRef, Thumbnail
from tests.curation.report import sample

PICTURE = Thumbnail("data:image/webp;base64,AAAA", 10, 100, 60, "", None)


def rows_of(table: pa.Table, rows: list[int]) -> list[dict]:
    return table.take(rows).to_pylist()


def test_a_small_gallery_still_shows_every_verdict_and_every_reason() -> None:
    table = sample.scores(600, seed=3)
    chosen = choose(table, 24)
    shown, everyone = rows_of(table, chosen), table.to_pylist()
    assert len(chosen) == len(set(chosen)) == 24
    assert {row["verdict"] for row in shown} == {row["verdict"] for row in everyone}
    assert {reason for row in shown for reason in row["reasons"]} == {r for row in everyone for r in row["reasons"]}


def test_the_gallery_is_full_where_there_are_clips_enough_and_never_larger() -> None:
    table = sample.scores(60)
    assert len(choose(table, 60)) == len(choose(table, 1000)) == 60
    assert len(choose(table, 40)) == 40
    assert choose(table, 0) == [] and choose(table.slice(0, 0), 10) == []


def test_the_choice_does_not_depend_on_the_order_of_the_rows() -> None:
    table = sample.scores(200)
    turned = table.take(list(range(199, -1, -1)))
    keys = [{row["key"] for row in rows_of(t, choose(t, 30))} for t in (table, turned)]
    assert keys[0] == keys[1]


def test_one_clip_without_a_picture_costs_no_other() -> None:
    table = sample.scores(6)

    def runner(function, refs):
        return [RuntimeError("the process died") if i == 2 else PICTURE for i in range(len(refs))]

    shown = tiles(sample.report(table), range(6), runner)
    assert [tile.media == "the process died" for tile in shown] == [False, False, True, False, False, False]


def test_the_plain_runner_keeps_errors_in_their_place() -> None:
    def fragile(ref: ClipRef) -> Thumbnail:
        if ref.source_uri == "bad":
            raise ValueError("no such thing")
        return PICTURE

    first, second = one_by_one(fragile, [ClipRef("bad", 0, 1), ClipRef("good", 0, 1)])
    assert str(first) == "no such thing" and second is PICTURE


def test_broken_rules_stand_beside_the_value() -> None:
    table = sample.scores()
    report = sample.report(table)
    rows = [i for i, row in enumerate(table.to_pylist()) if "text" in row["reasons"]]
    tile = tiles(report, rows[:1], lambda function, refs: [PICTURE] * len(refs))[0]
    cells = {(stage.name, cell.name): cell for stage in tile.stages for cell in stage.cells}
    assert cells["text_overlay", "area"].breaks == "≤ 0.02"
    assert cells["static", "frozen_ratio"].breaks == ""
    assert cells["snr", "over_time"].spark.startswith("M") and cells["sentences", "intervals"].spans


def test_a_list_without_values_and_a_null_are_shown_as_such() -> None:
    table = sample.scores(3)
    place = table.column_names.index("snr.over_time")
    column = pa.array([[], None, [None, float("nan")]], pa.list_(pa.float32()))
    table = table.set_column(place, table.schema.field(place), column)
    shown = tiles(replace(sample.report(table), speech=None), [0, 1, 2], lambda f, refs: [PICTURE] * len(refs))
    texts = [cell.text for tile in shown for stage in tile.stages for cell in stage.cells if cell.name == "over_time"]
    assert texts[0] == "0 values"


def test_drawings_stay_in_their_box() -> None:
    assert spans([{"start_s": -1, "end_s": 2}, {"start_s": 3, "end_s": 99}, {"start_s": 5, "end_s": 5}], 4, 100) == (
        (0.0, 50.0),
        (75.0, 25.0),
    )
    assert spans([{"start_s": 0, "end_s": 1}], 0, 100) == ()
    assert sparkline([1, None, 3, 2]).count("M") == 2
    assert sparkline([None]) == sparkline([]) == ""
    assert sparkline([5, 5, 5]) and len(sparkline(list(range(10_000)))) < 1500


def test_paths_do_not_matter_to_the_name(tmp_path: Path) -> None:
    table = sample.scores(2, uris=[f"{tmp_path}/a b's.mp4"])
    (tile,) = tiles(sample.report(table), [0], lambda function, refs: [PICTURE])
    assert tile.name == "a b's.mp4"
