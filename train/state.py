"""The tensors of a run: what a checkpoint holds besides plain data."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from train.ema import Ema


def run_tensors(
    model: nn.Module, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer, ema: Ema | None
) -> dict[str, dict[str, Tensor]]:
    """``model``, ``optimizer`` and ``ema``: weights, what Adam knows of the trained ``parameters``, their average.

    Raises:
        RuntimeError: the model holds gathered copies of its parameters, see :func:`train.parallel.reshard`.
    """
    weights = dict(model.named_parameters())
    if gathered := [name for name, parameter in parameters.items() if weights[name] is not parameter]:
        raise RuntimeError(
            f"{gathered[0]} and {len(gathered) - 1} more are copies, not the parameters that are trained"
        )
    return {
        "model": {name: value.detach() for name, value in weights.items()},
        "optimizer": {
            f"{name}.{key}": value
            for name, parameter in parameters.items()
            for key, value in optimizer.state[parameter].items()
        },
        **({"ema": ema.average} if ema else {}),
    }


def generator_states(rank: int, device: torch.device) -> dict[str, Tensor]:
    """States of a rank's default generators, which nothing here draws from, but what is plugged in might."""
    states = {f"{rank}.cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states[f"{rank}.cuda"] = torch.cuda.get_rng_state()
    return states


def set_generators(states: Mapping[str, Tensor]) -> None:
    """Those of :func:`generator_states`."""
    for name, state in states.items():
        (torch.set_rng_state if name.endswith(".cpu") else torch.cuda.set_rng_state)(state)
