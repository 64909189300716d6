"""Starting values for parameters that are still on the meta device."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from model.stream import HalfBlock, Head


@torch.no_grad()
def initialise(module: nn.Module, device: torch.device | str = "cpu") -> list[str]:
    """Give every parameter on the meta device memory and its starting value; the others keep theirs.

    As Wan: Xavier-uniform linears without bias, a head of zeros. Beyond Wan: embeddings of text and time that keep
    the size of what they embed at every width (Wan's deviation of 0.02 does at its own, and at a width of 96 would
    leave a fiftieth of the text), reference values of zeros, so that a reference changes nothing at first, and gates
    near 1, with which a twin from scratch learns sooner. Values are drawn whole from PyTorch's global CPU generator, so
    a sharded module
    (``DTensor`` parameters) starts with the values that an unsharded one would have.

    Returns:
        Names of the parameters that were initialised.
    """
    state = {}
    for path, part in module.named_modules():
        for name, parameter in part.named_parameters(recurse=False):
            if parameter.is_meta:
                value = _starting_value(part, path, name, parameter).to(device=device, dtype=parameter.dtype)
                if isinstance(parameter, DTensor):
                    value = distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
                state[f"{path}.{name}" if path else name] = value
    module.load_state_dict(state, strict=False, assign=True)
    return list(state)


def _starting_value(part: nn.Module, path: str, name: str, parameter: Tensor) -> Tensor:
    value = torch.empty(parameter.shape)
    if name == "bias":
        return value.zero_()
    if isinstance(part, nn.LayerNorm | nn.RMSNorm):
        return value.fill_(1.0)
    if isinstance(part, HalfBlock | Head):
        value.normal_(std=value.shape[-1] ** -0.5)
        if isinstance(part, HalfBlock):
            value[:, [2, 5]] += 1.0
        return value
    if name == "weight" and path.endswith((".v_ref", "head.head")):
        return value.zero_()
    if "text_embedding." in path or "time_embedding." in path:
        return value.normal_(std=value.shape[1] ** -0.5)
    nn.init.xavier_uniform_(value.flatten(1))
    return value
