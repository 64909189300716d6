"""Wan's noise levels and UniPC, against vectors from Wan's own scheduler."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import UniPCMultistepScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from model.schedule import UniPC, shift_sigma, wan_sigmas, wan_timesteps

CASES = [(steps, shift) for steps in (1, 2, 8, 40, 50) for shift in (3, 5)]


@pytest.fixture(scope="module")
def golden(shared):
    return load_file(shared / "golden" / "wan_native_unipc.safetensors")


@pytest.mark.parametrize("steps, shift", CASES)
def test_levels_and_times_are_wans(golden, steps, shift):
    name = f"io/shift{shift}_n{steps}"
    assert torch.equal(wan_sigmas(steps, shift), golden[f"{name}_sigmas"])
    assert torch.equal(wan_timesteps(steps, shift), golden[f"{name}_timesteps"])


@pytest.mark.parametrize("steps, shift", CASES)
def test_trajectory_is_wans(golden, steps, shift):
    """To the last bits: the vectors were computed on another processor, whose tanh and log round differently."""
    name = f"io/shift{shift}_n{steps}"
    x, solver = golden[f"{name}_x0"], UniPC(wan_sigmas(steps, shift))
    for time, expected in zip(wan_timesteps(steps, shift), golden[f"{name}_trajectory"], strict=True):
        x = solver.step(x, torch.tanh(1.3 * x + time / 1000))
        torch.testing.assert_close(x, expected.view_as(x), atol=1e-6, rtol=0)


@pytest.mark.parametrize("steps, shift", CASES)
def test_trajectory_is_that_of_diffusers_to_the_bit(steps, shift):
    theirs = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)
    theirs.set_timesteps(steps, sigmas=np.linspace(float(np.float32(0.999)), 0, steps + 1)[:-1])
    x = y = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(steps))
    solver = UniPC(wan_sigmas(steps, shift))
    for time in theirs.timesteps:
        x = theirs.step(torch.tanh(1.3 * x + time / 1000), time, x).prev_sample
        y = solver.step(y, torch.tanh(1.3 * y + time / 1000))
    assert torch.equal(x, y)


@settings(deadline=None)
@given(steps=st.integers(1, 60), shift=st.floats(0.5, 12))
def test_levels_fall_to_zero(steps, shift):
    sigmas = wan_sigmas(steps, shift)
    assert (sigmas.diff() < 0).all() and sigmas[0] < 1 and sigmas[-1] == 0


@settings(deadline=None)
@given(u=st.floats(0, 1), shift=st.floats(0.5, 12))
def test_training_levels_follow_the_sampling_grid(u, shift):
    level = shift_sigma(torch.tensor(u, dtype=torch.float64), shift).item()
    assert level == pytest.approx(u * shift / (1 - u + u * shift))
    assert 0 <= level <= 1


def test_a_straight_field_is_solved_exactly():
    """Where the velocity does not depend on x or time, every step must land on the line."""
    noise, data = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    sigmas = wan_sigmas(7, 5.0)
    x, solver = (1 - sigmas[0]) * data + sigmas[0] * noise, UniPC(sigmas)
    for sigma in sigmas[1:]:
        x = solver.step(x, noise - data)
        torch.testing.assert_close(x, (1 - sigma) * data + sigma * noise, atol=2e-6, rtol=0)


def test_order_two_beats_euler():
    """dx/dsigma = x has the solution x(0) = x(s) e^-s."""

    def error(steps: int) -> float:
        sigmas = wan_sigmas(steps, 1.0)
        x, solver = torch.ones(1), UniPC(sigmas)
        for _ in range(steps):
            x = solver.step(x, x)
        return abs(x.item() - np.exp(-sigmas[0].item()))

    assert error(20) < 2e-3
    assert error(40) < error(20) / 3


@pytest.mark.parametrize("steps, shift", [(0, 5.0), (10, 0.0), (10, -1.0), (10, float("nan"))])
def test_impossible_grids_are_refused(steps, shift):
    with pytest.raises(ValueError, match=r"^(steps|shift) is"):
        wan_sigmas(steps, shift)
