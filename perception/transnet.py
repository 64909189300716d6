"""TransNetV2 (Souček and Lokoč, arXiv 2008.04838): shot boundaries from 48 x 27 frames.

Written from the paper's architecture for the parameters of the ``transnetv2`` registry entry. The package
that carries them is not a dependency: importing it sets process-wide seeds and determinism flags, loads a
pickle without ``weights_only``, and wants an ffmpeg executable, pandas and tqdm.

A stack of three blocks of dilated (2+1)D convolutions sees each frame at 3, 6, … 24 × 2 + 1 frames of context;
two side branches compare every frame with the 50 before and after it, by learned features and by colour
histogram. Module names follow the published parameter names.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH, HEIGHT = 48, 27
WINDOW = 100  # frames that the network was trained on
LOOKUP = 101  # the frame itself and 50 on either side
DILATIONS = (1, 2, 4, 8)


class SeparableConv3d(nn.Module):
    """A 3 x 3 convolution in space, then one of length 3 in time with the given dilation."""

    def __init__(self, channels_in: int, channels: int, dilation: int) -> None:
        super().__init__()
        space = nn.Conv3d(channels_in, 2 * channels, (1, 3, 3), padding=(0, 1, 1), bias=False)
        time = nn.Conv3d(
            2 * channels, channels, (3, 1, 1), padding=(dilation, 0, 0), dilation=(dilation, 1, 1), bias=False
        )
        self.layers = nn.Sequential(space, time)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class DilatedCell(nn.Module):
    """Four parallel temporal dilations, concatenated and normalised."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        for dilation in DILATIONS:
            self.add_module(f"Conv3D_{dilation}", SeparableConv3d(channels_in, channels, dilation))
        self.bn = nn.BatchNorm3d(len(DILATIONS) * channels, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        branches = [self.get_submodule(f"Conv3D_{dilation}")(x) for dilation in DILATIONS]
        return self.bn(torch.cat(branches, dim=1))


class DilatedBlock(nn.Module):
    """Two cells with a shortcut from the first to the sum, then a halving of the frame."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.DDCNN = nn.ModuleList([DilatedCell(channels_in, channels), DilatedCell(4 * channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        first = functional.relu(self.DDCNN[0](x))
        return functional.avg_pool3d(functional.relu(self.DDCNN[1](first)) + first, (1, 2, 2))


def around(similarities: Tensor) -> Tensor:
    """From ``[B, T, T]`` to ``[B, T, LOOKUP]``: row *t* holds the columns t−50…t+50, 0 outside."""
    batch, length, _ = similarities.shape
    padded = functional.pad(similarities, (LOOKUP // 2, LOOKUP // 2))
    columns = torch.arange(length)[:, None] + torch.arange(LOOKUP)
    return padded.gather(2, columns.to(similarities.device).expand(batch, -1, -1))


class FrameSimilarity(nn.Module):
    """Cosine similarity of projected block features with the frames around."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.projection = nn.Linear(channels, 128)
        self.fc = nn.Linear(LOOKUP, 128)

    def forward(self, blocks: list[Tensor]) -> Tensor:
        pooled = torch.cat([x.mean(dim=(3, 4)) for x in blocks], dim=1).transpose(1, 2)
        unit = functional.normalize(self.projection(pooled), dim=2)
        return functional.relu(self.fc(around(unit @ unit.transpose(1, 2))))


class ColorHistograms(nn.Module):
    """Cosine similarity of 512-bin RGB histograms with the frames around."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(LOOKUP, 128)

    def forward(self, frames: Tensor) -> Tensor:
        batch, length = frames.shape[:2]
        red, green, blue = (frames.reshape(batch, length, -1, 3).long() >> 5).unbind(-1)
        bins = (red << 6) + (green << 3) + blue
        histograms = torch.zeros(batch, length, 512, device=frames.device)
        histograms.scatter_add_(2, bins, torch.ones_like(bins, dtype=histograms.dtype))
        unit = functional.normalize(histograms, dim=2)
        return functional.relu(self.fc(around(unit @ unit.transpose(1, 2))))


class TransNetV2(nn.Module):
    """uint8 RGB ``[B, T, 27, 48, 3]`` to two probabilities ``[B, T, 2]``.

    The first says that the transition to the next shot is centred on this frame (for a hard cut: this is
    the last frame of its shot), the second that the frame is part of a transition.
    """

    def __init__(self, channels: int = 16, blocks: int = 3, hidden: int = 1024) -> None:
        super().__init__()
        widths = [channels * 2**level for level in range(blocks)]
        inputs = [3, *(4 * width for width in widths[:-1])]
        self.SDDCNN = nn.ModuleList([DilatedBlock(a, b) for a, b in zip(inputs, widths, strict=True)])
        self.frame_sim_layer = FrameSimilarity(4 * sum(widths))
        self.color_hist_layer = ColorHistograms()
        self.fc1 = nn.Linear(4 * widths[-1] * 3 * 6 + 2 * 128, hidden)
        self.cls_layer1 = nn.Linear(hidden, 1)
        self.cls_layer2 = nn.Linear(hidden, 1)

    def forward(self, frames: Tensor) -> Tensor:
        x = frames.permute(0, 4, 1, 2, 3).float() / 255
        features = []
        for block in self.SDDCNN:
            x = block(x)
            features.append(x)
        flat = x.permute(0, 2, 3, 4, 1).flatten(2)
        joined = torch.cat([self.color_hist_layer(frames), self.frame_sim_layer(features), flat], dim=2)
        hidden = functional.relu(self.fc1(joined))
        return torch.sigmoid(torch.cat([self.cls_layer1(hidden), self.cls_layer2(hidden)], dim=2))


def load_transnet(path: Path) -> TransNetV2:
    """The network with the parameters of ``path``, strict, in evaluation mode on the CPU."""
    network = TransNetV2()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True), strict=True)
    return network.eval().requires_grad_(False)
