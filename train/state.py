"""The tensors of a run: what a checkpoint holds besides plain data."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from train.ema import Ema


def run_tensors(
    model: nn.Module, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer, ema: Ema | None
) -> dict[str, Tensor]:
    """Weights, optimizer state of the trained ``parameters`` and their average, by their names in a checkpoint."""
    tensors = {f"model.{name}": value.detach() for name, value in model.named_parameters()}
    for name, parameter in parameters.items():
        tensors |= {f"optimizer.{name}.{key}": x for key, x in optimizer.state[parameter].items()}
    return tensors | ({f"ema.{name}": average for name, average in ema.average.items()} if ema else {})


def generator_states(rank: int, device: torch.device) -> dict[str, Tensor]:
    """States of a rank's default generators, which nothing here draws from, but what is plugged in might."""
    states = {f"rng.{rank}.cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states[f"rng.{rank}.cuda"] = torch.cuda.get_rng_state()
    return states


def set_generators(states: Mapping[str, Tensor]) -> None:
    """Those of :func:`generator_states`."""
    for name, state in states.items():
        (torch.set_rng_state if name.endswith(".cpu") else torch.cuda.set_rng_state)(state)
