"""Draws depend on seed, step and sample, and on nothing else."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from train.config import DropConfig, NoiseConfig
from train.step_random import StepRandom

NAMES = [f"clip_{n}|0" for n in range(12)]


@settings(deadline=None, max_examples=30)
@given(st.permutations(NAMES), st.integers(1, 12), st.integers(0, 2**63), st.integers(0, 10**6))
def test_a_samples_draws_do_not_depend_on_its_batch(names, count, seed, step):
    whole, part = StepRandom(seed, step, NAMES), StepRandom(seed, step, names[:count])
    at = [NAMES.index(name) for name in names[:count]]
    assert torch.equal(part.normal("video", (3, 7)), whole.normal("video", (3, 7))[at])
    assert torch.equal(part.sigma("sigma", NoiseConfig()), whole.sigma("sigma", NoiseConfig())[at])
    for mine, all_ in zip(part.dropped(DropConfig()), whole.dropped(DropConfig())):
        assert torch.equal(mine, all_[at])


@pytest.mark.parametrize(
    "other", [StepRandom(2, 5, NAMES), StepRandom(1, 6, NAMES), StepRandom(1, 5, [n + "1" for n in NAMES])]
)
def test_another_seed_step_epoch_or_stream_is_other_noise(other):
    rng = StepRandom(1, 5, NAMES)
    noise = rng.normal("video", (64,))
    assert torch.equal(noise, StepRandom(1, 5, NAMES).normal("video", (64,)))
    for different in (other.normal("video", (64,)), rng.normal("audio", (64,))):
        assert not torch.isclose(noise, different).all(1).any()
    assert not torch.equal(rng.sigma("sigma", NoiseConfig()), other.sigma("sigma", NoiseConfig()))


def test_drawing_touches_no_global_generator():
    before = torch.get_rng_state()
    StepRandom(0, 0, NAMES).normal("video", (8,))
    assert torch.equal(before, torch.get_rng_state())


def test_normals_are_standard_and_samples_independent():
    noise = StepRandom(0, 0, [str(n) for n in range(400)]).normal("audio", (100,))
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02
    assert abs((noise[:-1] * noise[1:]).mean()) < 0.02


def test_noise_levels_follow_the_shift():
    rng = StepRandom(0, 0, [str(n) for n in range(20_000)])
    u = rng.uniform("sigma")
    sigma = rng.sigma("sigma", NoiseConfig(shift=5.0))
    assert torch.allclose(sigma, (5 * u / (1 + 4 * u)).float())
    assert abs(sigma.median() - 5 / 6) < 0.01
    assert abs(rng.sigma("sigma", NoiseConfig(shift=1.0, level="logit_normal")).logit().std() - 1) < 0.02


def test_conditions_are_dropped_as_often_as_asked():
    rng = StepRandom(0, 0, [str(n) for n in range(20_000)])
    text, reference = rng.dropped(DropConfig(text=0.1, reference=0.2, both=0.05))
    shares = [float(x.float().mean()) for x in (text & ~reference, reference & ~text, text & reference)]
    assert all(abs(share - wanted) < 0.01 for share, wanted in zip(shares, (0.1, 0.2, 0.05)))
    assert not any(x.any() for x in rng.dropped(DropConfig(text=0, reference=0, both=0)))
