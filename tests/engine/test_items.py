"""Identities: stable, sensitive to what they are made of, and round trips through Arrow."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.items import Clip, Source, clip_key, from_table, stable_hash, to_table

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
TIMES = st.floats(0, 1e5, allow_nan=False)


def test_the_hash_is_the_same_everywhere():
    assert stable_hash("source", "a.mp4") == "525b70a0112bf012ff343c91be8cbec6"


@settings(deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=4), st.lists(TEXT, min_size=1, max_size=4))
def test_different_parts_have_different_hashes(a, b):
    # the separator is a control character that joins parts; texts that contain it could collide
    a, b = ([part.replace("\x1f", "") for part in parts] for parts in (a, b))
    assert (stable_hash(*a) == stable_hash(*b)) == (a == b)


@settings(deadline=None)
@given(TIMES, TIMES)
def test_a_clips_key_depends_on_every_part(start, length):
    key = clip_key("content", start, start + length, "1")
    assert key == clip_key("content", start, start + length, "1")
    assert key != clip_key("other", start, start + length, "1")
    assert key != clip_key("content", start + 1e-3, start + length, "1")
    assert key != clip_key("content", start, start + length + 1e-3, "1")
    assert key != clip_key("content", start, start + length, "2")


@settings(deadline=None)
@given(TEXT, TEXT)
def test_rows_survive_a_table(uri, licence):
    source = Source.of(uri, licence)
    clip = Clip("k", uri, "c", 0.25, 1.5, 640, 480, 25.0, 16000, licence)
    assert list(from_table(to_table([source], Source), Source)) == [source]
    assert list(from_table(to_table([clip, clip], Clip), Clip)) == [clip, clip]
