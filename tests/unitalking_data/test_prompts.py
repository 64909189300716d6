from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from unitalking_data.prompts import PromptConfig, draw_format, draw_take, render

ATOMS = {
    "video_detailed": "A woman in a red coat stands by a window.",
    "video_short": "A woman talks.",
    "fused": 'A woman by a window says "good morning to all" in a low voice.',
    "audio_caption": "A calm low voice, no music.",
    "transcript": "Good morning to all",
}


def test_the_three_formats_of_the_paper():
    assert render(ATOMS, "detailed") == (
        "A woman in a red coat stands by a window. Someone says: <S>Good morning to all<E> "
        "Audio: A calm low voice, no music."
    )
    assert render(ATOMS, "short", "ovi10") == (
        "A woman talks. Someone says: <S>Good morning to all<E> <AUDCAP>A calm low voice, no music.<ENDAUDCAP>"
    )
    assert render(ATOMS, "fused") == "A woman by a window says <S>Good morning to all<E> in a low voice."
    assert render(ATOMS, "short", "plain") == (
        'A woman talks. Someone says: "Good morning to all" Audio: A calm low voice, no music.'
    )


def test_a_fused_caption_without_the_words_is_followed_by_them():
    assert render(ATOMS | {"fused": "A woman greets us."}, "fused") == (
        "A woman greets us. Someone says: <S>Good morning to all<E>"
    )


def test_tags_in_model_text_are_removed():
    atoms = {"video_short": "A <S>woman<E> talks.", "transcript": "<S>hi", "audio_caption": "<AUDCAP>wind"}
    assert render(atoms, "short") == "A woman talks. Someone says: <S>hi<E> Audio: wind"


def test_missing_atoms_are_left_out():
    assert render({"video_short": "A woman talks.", "transcript": None}, "short") == "A woman talks."
    assert render({"transcript": "hi"}, None) == "Someone says: <S>hi<E>"
    assert render({}, None) == ""


@settings(deadline=None, max_examples=50)
@given(st.text(min_size=1).filter(str.strip), st.sampled_from(["detailed", "short", "fused", None]))
def test_the_transcript_stands_once_whatever_it_is(transcript, form):
    prompt = render(ATOMS | {"transcript": transcript}, form)
    assert prompt.count("<S>") == prompt.count("<E>") <= 1


def test_formats_are_drawn_by_their_shares_among_those_there_are():
    def count(atoms, shares, clips=3000):
        return Counter(draw_format(atoms, shares, key=f"k{k}", epoch=0, seed=0) for k in range(clips))

    drawn = count(ATOMS, PromptConfig().shares)
    assert set(drawn) == {"detailed", "short", "fused"} and min(drawn.values()) > 880
    drawn = count(ATOMS, {"detailed": 3, "short": 1})
    assert set(drawn) == {"detailed", "short"} and abs(drawn["short"] - 750) < 130
    assert set(count({"fused": "x"}, PromptConfig().shares, 20)) == {"fused"}
    assert set(count({"fused": ""}, PromptConfig().shares, 20)) == {None}
    assert set(count({"fused": "x"}, {"short": 1.0}, 20)) == {None}


def test_draws_change_with_key_epoch_and_seed_and_with_nothing_else():
    def row(**change):
        return [draw_take(3, **({"key": f"k{k}", "epoch": 1, "seed": 2} | change)) for k in range(60)]

    assert row() == row()
    assert set(row()) == {0, 1, 2}
    assert row() != row(epoch=2) and row() != row(seed=3)
    assert len(set(row(key="one"))) == 1


def test_an_unknown_setting_is_an_error():
    with pytest.raises(ValidationError):
        PromptConfig(style="ovi12")
    with pytest.raises(ValidationError):
        PromptConfig(shares={"long": 1})
