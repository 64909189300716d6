"""Rows are checked before any work, and every bad one is named by its line."""

from __future__ import annotations

import json

import pytest

from model.request import Request, RequestError, make_request, read_requests

DEFAULTS = {"seconds": 2.0, "height": 64, "width": 32, "seed": 3, "negative_prompt": "noise"}


def read(tmp_path, *rows, check=lambda request: None):
    path = tmp_path / "batch.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return read_requests(path, DEFAULTS, check)


def test_defaults_fill_what_a_row_leaves_out(tmp_path):
    first, second = read(tmp_path, {"task": "t2av", "prompt": "a", "seed": 9}, "", {"task": "tts", "prompt": "b"})
    assert first == Request(key="000001", task="t2av", prompt="a", **{**DEFAULTS, "seed": 9})
    assert (second.key, second.height, second.width) == ("000003", None, None)


def test_files_are_found_beside_the_batch(tmp_path):
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / "a.png").write_bytes(b"x")
    row = {"task": "ti2av", "prompt": "", "image": "faces/a.png"}
    (request,) = read(tmp_path, row)
    assert request.image == str(tmp_path / "faces" / "a.png")
    assert read(tmp_path, row | {"image": request.image}) == [request]
    assert read(tmp_path, row | {"image": "s3://bucket/a.png"})[0].image == "s3://bucket/a.png"


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("{", "not JSON"),
        ("[1]", "expected an object, found list"),
        ({"prompt": "a"}, "task: Field required"),
        ({"task": "t2v", "prompt": "a"}, "task: Input should be 'tts', 'tts_ref', 't2av'"),
        ({"task": "t2av"}, "prompt: Field required"),
        ({"task": "t2av", "prompt": "a", "promt": "b"}, "promt: Extra inputs are not permitted"),
        ({"task": "t2av", "prompt": "a", "seed": "7"}, "seed: Input should be a valid integer"),
        ({"task": "t2av", "prompt": "a", "seconds": 0}, "seconds: Input should be greater than 0"),
        ({"task": "t2av", "prompt": "a", "seconds": float("nan")}, "seconds: "),
        ({"task": "t2av", "prompt": "a", "key": "../a"}, "key: String should match pattern"),
        ({"task": "t2av", "prompt": "a", "key": ".hidden"}, "key: String should match pattern"),
        ({"task": "ti2av", "prompt": "a"}, "task ti2av needs image"),
        ({"task": "tv2a", "prompt": "a"}, "task tv2a needs video"),
        ({"task": "tr2av", "prompt": "a"}, "task tr2av needs reference"),
        ({"task": "t2av", "prompt": "a", "image": "s3://b/a.png"}, "task t2av takes no image"),
        ({"task": "tts", "prompt": "a", "height": 64}, "task tts has no video"),
        ({"task": "t2av", "prompt": "a", "height": None}, "task t2av needs height and width"),
        ({"task": "ti2av", "prompt": "a", "image": "b.png"}, "image: no such file: "),
        ({"task": "ti2av", "prompt": "a", "image": "../b.png"}, r"image: ../b.png leaves the folder"),
        ({"task": "t2av", "prompt": "a", "key": "first"}, "key 'first' is in an earlier line"),
    ],
)
def test_bad_rows_are_named_by_their_line(tmp_path, row, complaint):
    good = {"task": "t2av", "prompt": "a", "key": "first"}
    with pytest.raises(RequestError) as error:
        read(tmp_path, good, "", row, good | {"key": "last"})
    assert f"{tmp_path / 'batch.jsonl'}: 1 bad rows\n  line 3: " in str(error.value)
    assert complaint in str(error.value)


def test_what_the_model_refuses_is_named_by_line_too(tmp_path):
    def check(request):
        raise RequestError("height: 64 is no multiple of 48")

    with pytest.raises(RequestError, match=r"2 bad rows\n  line 1: height: 64 .*\n  line 2: height"):
        read(tmp_path, {"task": "t2av", "prompt": "a"}, {"task": "t2av", "prompt": "a"}, check=check)


def test_an_empty_or_missing_batch_is_refused(tmp_path):
    with pytest.raises(RequestError, match="holds no rows"):
        read(tmp_path, "")
    with pytest.raises(RequestError, match=r"cannot read .*none\.jsonl"):
        read_requests(tmp_path / "none.jsonl", DEFAULTS, lambda request: None)


def test_flags_are_checked_like_rows():
    assert make_request({"task": "tts", "prompt": "a"}, DEFAULTS).seconds == 2.0
    with pytest.raises(RequestError, match="task: Field required; prompt: Field required"):
        make_request({}, {})
