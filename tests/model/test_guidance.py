"""The weighted sum of passes against the formula written out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.guidance import CHAIN, Guidance, Scales, combine, passes

scale = st.floats(0, 12).map(lambda value: round(value, 2))
scales = st.builds(Scales, text=scale, image=scale, reference=scale)
held = st.sets(st.sampled_from(CHAIN))


def field(conditions) -> torch.Tensor:
    """A velocity for every set of conditions, far from additive in them."""
    seed = sum(1 << CHAIN.index(name) for name in conditions)
    return torch.randn(2, 5, generator=torch.Generator().manual_seed(seed))


def chained(scales: Scales, conditions) -> torch.Tensor:
    """The formula of the module's docstring, term by term."""
    so_far: set[str] = set()
    total = field(so_far)
    for name in CHAIN:
        if name in conditions:
            total = total + getattr(scales, name) * (field(so_far | {name}) - field(so_far))
            so_far.add(name)
    return total


@settings(deadline=None)
@given(video=scales, audio=scales, conditions=held)
def test_each_stream_follows_the_formula(video, audio, conditions):
    needed = passes(Guidance(video=video, audio=audio), conditions)
    velocities = [field(p.conditions) for p in needed]
    for scales_of, weights in ((video, [p.video for p in needed]), (audio, [p.audio for p in needed])):
        torch.testing.assert_close(combine(velocities, weights), chained(scales_of, conditions), atol=1e-4, rtol=0)
        assert sum(weights) == pytest.approx(1)


@settings(deadline=None)
@given(video=scales, audio=scales, conditions=held)
def test_only_what_is_needed_is_computed(video, audio, conditions):
    *others, complete = passes(Guidance(video=video, audio=audio), conditions)
    assert complete.conditions == conditions
    assert all(p.video or p.audio for p in others)


@settings(deadline=None)
@given(w=scale.filter(lambda w: w != 1))
def test_equal_scales_are_the_usual_two_passes(w):
    same = Scales(text=w, image=w, reference=w)
    null, complete = passes(Guidance(video=same, audio=same), CHAIN)
    assert null.conditions == set() and complete.conditions == set(CHAIN)
    expected = field(()) + w * (field(CHAIN) - field(()))
    velocities = [field(()), field(CHAIN)]
    torch.testing.assert_close(combine(velocities, [null.video, complete.video]), expected, atol=1e-4, rtol=0)


def test_text_scale_alone_keeps_the_image_in_both_passes():
    needed = passes(Guidance(video=Scales(text=5), audio=Scales(text=5)), {"image", "text"})
    assert [p.conditions for p in needed] == [{"image"}, {"image", "text"}]
    assert [p.video for p in needed] == [-4, 5]


def test_without_guidance_one_pass_suffices():
    (only,) = passes(Guidance(), CHAIN)
    assert (only.video, only.audio) == (1, 1)


def test_unknown_scales_are_refused():
    with pytest.raises(ValueError, match="pictures"):
        Guidance.model_validate({"video": {"pictures": 3}})
