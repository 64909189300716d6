"""Noise levels and the ODE solver of flow matching, as Wan 2.2 has them.

A noised latent is ``(1 - sigma) * data + sigma * noise`` and the network predicts ``noise - data``; its timestep is
``1000 * sigma``. The solver is UniPC of order 2 with B(h) = e^h - 1 in the data-prediction form (Zhao et al. 2023,
https://arxiv.org/abs/2302.04867, algorithms 5 and 8) with alpha = 1 - sigma, as ``FlowUniPCMultistepScheduler`` of the
Wan 2.2 repository has it. Its arithmetic is kept in that scheduler's order and in float32, so that trajectories agree
with it and with ``diffusers`` to the bit.
"""

from __future__ import annotations

import numpy as np
import torch

TRAIN_STEPS = 1000


def shift_sigma(u: torch.Tensor, shift: float) -> torch.Tensor:
    """Training noise levels ``shift * u / (1 + (shift - 1) * u)`` of uniform ``u`` in 0…1, any shape (SD3, eq. 23)."""
    return shift * u / (1 + (shift - 1) * u)


def wan_sigmas(steps: int, shift: float) -> torch.Tensor:
    """Wan's grid of noise levels: float32 ``(steps + 1,)``, falling, the last one 0.

    Raises:
        ValueError: ``steps`` below 1 or ``shift`` not positive.
    """
    return _grid(steps, shift).float()


def wan_timesteps(steps: int, shift: float) -> torch.Tensor:
    """The integer times Wan's network is given at each step: int64 ``(steps,)``, ``1000 * sigma`` rounded down."""
    return (_grid(steps, shift)[:-1] * TRAIN_STEPS).long()


def _grid(steps: int, shift: float) -> torch.Tensor:
    """float64 ``(steps + 1,)``. Wan takes its largest level from a table of 1000 training levels in float32."""
    if steps < 1:
        raise ValueError(f"steps is {steps}; a sampler needs at least 1")
    if not shift > 0:
        raise ValueError(f"shift is {shift}; it must be positive")
    largest = float(np.float32(1 - 1 / TRAIN_STEPS))
    return shift_sigma(torch.from_numpy(np.linspace(largest, 0, steps + 1)), shift)


class UniPC:
    """The solver's state for one latent: call :meth:`step` once per noise level, in order.

    Every element is updated by itself, so one solver may hold a whole batch, and parts of it that are overwritten
    between steps (a clean first frame) disturb nothing else.

    Args:
        sigmas: float32 ``(steps + 1,)`` on the CPU, from :func:`wan_sigmas`.
    """

    def __init__(self, sigmas: torch.Tensor) -> None:
        log_ratio = torch.log(1 - sigmas) - torch.log(sigmas)
        length = log_ratio[:-1] - log_ratio[1:]  # -h of each step; the last is -infinity
        phi_1 = torch.expm1(length)
        past = -length[:-1] / length[1:]  # where the level before a step lies, in units of that step
        self._sigmas = sigmas.tolist()
        self._shrink = (sigmas[1:] / sigmas[:-1]).tolist()
        self._scale = ((1 - sigmas[1:]) * phi_1).tolist()
        self._past = past.tolist()
        self._corrector = _corrector_weights(length[1:-1], phi_1[1:-1], past[:-1]).tolist()
        self._step = 0
        self._data: list[torch.Tensor] = []  # predictions of the data at the last two levels, newest last
        self._start: torch.Tensor | None = None  # where the last prediction set out from

    def step(self, x: torch.Tensor, velocity: torch.Tensor) -> torch.Tensor:
        """From the latent at noise level ``sigmas[i]`` to the next one, at the ``i``-th call.

        Args:
            x: float32, any shape.
            velocity: the network's ``noise - data`` at ``x``, same shape.
        """
        i = self._step
        data = x - self._sigmas[i] * velocity.float()
        if i > 0:
            x = self._correct(i - 1, data)
        self._data, self._start, self._step = [*self._data, data][-2:], x, i + 1
        second_order = 0 < i < len(self._scale) - 1
        return self._update(i, x, self._slope(i) * 0.5 if second_order else None)

    def _correct(self, i: int, data: torch.Tensor) -> torch.Tensor:
        """UniC: step ``i`` made again, now that the prediction at its end is known."""
        change = data - self._data[-1]
        if i == 0:
            return self._update(i, self._start, 0.5 * change)
        weight_past, weight_now = self._corrector[i - 1]
        return self._update(i, self._start, weight_past * self._slope(i) + weight_now * change)

    def _update(self, i: int, x: torch.Tensor, residual: torch.Tensor | None) -> torch.Tensor:
        """Step ``i`` by the exponential integrator, with a term of second order on top."""
        moved = self._shrink[i] * x - self._scale[i] * self._data[-1]
        return moved if residual is None else moved - self._scale[i] * residual

    def _slope(self, i: int) -> torch.Tensor:
        """Change of the prediction over the step before step ``i``, in units of step ``i``."""
        return (self._data[-2] - self._data[-1]) / self._past[i - 1]


def _corrector_weights(length: torch.Tensor, phi_1: torch.Tensor, past: torch.Tensor) -> torch.Tensor:
    """``(n, 2)``: weights of the slope before a step and of the change over it, which make UniC third order."""
    phi_2 = phi_1 / length - 1
    phi_3 = phi_2 / length - 1 / 2
    ones = torch.ones_like(past)
    nodes = torch.stack([torch.stack([ones, ones], 1), torch.stack([past, ones], 1)], 1)
    return torch.linalg.solve(nodes, torch.stack([phi_2 / phi_1, phi_3 * 2 / phi_1], 1))
