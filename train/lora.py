"""Low-rank fine-tuning (Hu et al. 2021, https://arxiv.org/abs/2106.09685): frozen weights plus a trained ``B A``."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.config import LoraConfig


class LoraLinear(nn.Linear):
    """A linear layer with its own parameters under their old names, and ``lora_a``, ``lora_b`` beside them."""

    def __init__(self, layer: nn.Linear, config: LoraConfig) -> None:
        with torch.device("meta"):
            super().__init__(layer.in_features, layer.out_features, layer.bias is not None)
            self.lora_a = nn.Parameter(torch.empty(config.rank, layer.in_features))
            self.lora_b = nn.Parameter(torch.empty(layer.out_features, config.rank))
        self.scale = config.alpha / config.rank

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.scale * F.linear(F.linear(x, self.lora_a), self.lora_b)


def add_lora(model: nn.Module, config: LoraConfig) -> None:
    """Replace the targeted layers of a model on the meta device.

    Raises:
        ValueError: a target that matches no linear layer.
    """
    linear = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    for target in config.targets:
        if not any(fnmatchcase(name, target) for name in linear):
            raise ValueError(f"lora.targets: {target} matches no linear layer")
    for name, layer in linear.items():
        if any(fnmatchcase(name, target) for target in config.targets):
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, LoraLinear(layer, config))


@torch.no_grad()
def start_lora(model: nn.Module) -> None:
    """Zero every ``B``: the model starts as it was."""
    for name, parameter in model.named_parameters():
        if name.endswith(".lora_b"):
            parameter.zero_()


def merge_lora(tensors: Mapping[str, Tensor], config: LoraConfig) -> dict[str, Tensor]:
    """Tensors of a model with its updates added to its weights, by the names of the model without them."""
    merged = {name: tensor for name, tensor in tensors.items() if not name.endswith((".lora_a", ".lora_b"))}
    for name, a in tensors.items():
        if name.endswith(".lora_a"):
            layer = name.removesuffix(".lora_a")
            merged[f"{layer}.weight"] = tensors[f"{layer}.weight"].addmm(
                tensors[f"{layer}.lora_b"], a, alpha=config.alpha / config.rank
            )
    return merged
