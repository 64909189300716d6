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
        self._sigmas = sigmas
        self._lambdas = torch.log(1 - sigmas) - torch.log(sigmas)
        self._step = 0
        self._data: list[torch.Tensor] = []  # predictions of the data at the last two levels, newest last
        self._start: torch.Tensor | None = None  # where the last prediction set out from

    def step(self, x: torch.Tensor, velocity: torch.Tensor) -> torch.Tensor:
        """From the latent at noise level ``sigmas[i]`` to the next one, at the ``i``-th call.

        Args:
            x: float32, any shape.
            velocity: the network's ``noise - data`` at ``x``, same shape.
        """
        i, steps = self._step, len(self._sigmas) - 1
        data = x - self._sigmas[i] * velocity.float()
        if i > 0:
            x = self._correct(i, data)
        self._data = [*self._data, data][-2:]
        self._start = x
        self._step += 1
        second_order = i > 0 and i < steps - 1
        return self._update(i, i + 1, x, self._slope(i, i + 1) * 0.5 if second_order else None)

    def _correct(self, i: int, data: torch.Tensor) -> torch.Tensor:
        """UniC: the step to level ``i`` made again, now that the prediction there is known."""
        change = data - self._data[-1]
        if i == 1:
            return self._update(i - 1, i, self._start, 0.5 * change)
        rho_past, rho_now = self._corrector_weights(i)
        return self._update(i - 1, i, self._start, rho_past * self._slope(i - 1, i) + rho_now * change)

    def _update(self, i: int, j: int, x: torch.Tensor, residual: torch.Tensor | None) -> torch.Tensor:
        """The exponential integrator from level ``i`` to ``j``, with a term of second order on top."""
        phi = torch.expm1(self._lambdas[i] - self._lambdas[j])
        scale = (1 - self._sigmas[j]) * phi
        moved = self._sigmas[j] / self._sigmas[i] * x - scale * self._data[-1]
        return moved if residual is None else moved - scale * residual

    def _slope(self, i: int, j: int) -> torch.Tensor:
        """Change of the prediction over the step before level ``i``, in units of the step from ``i`` to ``j``."""
        return (self._data[-2] - self._data[-1]) / self._ratio(i, j)

    def _ratio(self, i: int, j: int) -> torch.Tensor:
        return (self._lambdas[i - 1] - self._lambdas[i]) / (self._lambdas[j] - self._lambdas[i])

    def _corrector_weights(self, i: int) -> torch.Tensor:
        h = self._lambdas[i - 1] - self._lambdas[i]
        phi_1 = torch.expm1(h)
        phi_2 = phi_1 / h - 1
        phi_3 = phi_2 / h - 1 / 2
        ones = torch.ones(())
        nodes = torch.stack([self._ratio(i - 1, i), ones])
        return torch.linalg.solve(torch.stack([torch.ones(2), nodes]), torch.stack([phi_2, phi_3 * 2]) / phi_1)
