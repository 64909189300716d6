"""PANNs Cnn14 (Kong et al. 2020, arXiv 1912.10211): 527 AudioSet classes of 32 kHz audio.

The paper's tagger. The published package ``panns_inference`` is unmaintained since 2023: importing it runs wget for a
class list and, offline, leaves an empty one behind; its loader unpickles. So the network is written again here
for the published state dict, with PyTorch's own STFT, and agrees with the package's to rounding. The package's network
stays selectable (:func:`published_network`).
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from perception.yamnet import HOP_S, PATCH_S, read_classes

RATE = 32_000
_FFT, _STEP = 1024, 320
_MELS = 64
_BATCH = 16
# The six of AudioSet's 527 classes that YAMNet's list leaves out, by their index in the full list.
_NOT_IN_YAMNET = {
    1: "Male speech, man speaking",
    2: "Female speech, woman speaking",
    12: "Battle cry",
    32: "Male singing",
    33: "Female singing",
    277: "Funny music",
}


class Cnn14(nn.Module):
    """Input float ``[batch, samples]`` at 32 kHz (10 240 samples or more), output ``[batch, 527]`` in 0…1."""

    def __init__(self, class_count: int = 527) -> None:
        super().__init__()
        self.logmel_extractor = nn.Module()
        self.logmel_extractor.register_buffer("melW", torch.zeros(_FFT // 2 + 1, _MELS))
        self.register_buffer("_window", torch.hann_window(_FFT), persistent=False)
        self.bn0 = nn.BatchNorm2d(_MELS)
        widths = (1, 64, 128, 256, 512, 1024, 2048)
        for k, (before, after) in enumerate(pairwise(widths), start=1):
            self.add_module(f"conv_block{k}", _ConvBlock(before, after))
        self.fc1 = nn.Linear(2048, 2048)
        self.fc_audioset = nn.Linear(2048, class_count)

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        spectrum = torch.stft(audio, _FFT, _STEP, window=self._window, pad_mode="reflect", return_complex=True)
        mel = spectrum.abs().square().transpose(1, 2) @ self.logmel_extractor.melW
        x = 10 * torch.log10(mel.clamp(min=1e-10))[:, None]
        x = self.bn0(x.transpose(1, 3)).transpose(1, 3)
        for k in range(1, 7):
            x = self.get_submodule(f"conv_block{k}")(x)
            x = functional.avg_pool2d(x, 2) if k < 6 else x
        x = x.mean(dim=3)
        x = functional.relu(self.fc1(x.amax(dim=2) + x.mean(dim=2)))
        return torch.sigmoid(self.fc_audioset(x))


class _ConvBlock(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.bn2 = nn.BatchNorm2d(after)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(x)))


class Cnn14Tagger:
    """Cnn14 over the patches that YAMNet has: 0.96 s every 0.48 s.

    Args:
        checkpoint: the published ``Cnn14_mAP=0.431.pth`` (``{"model": state dict, …}``).
        yamnet_classes: YAMNet's class list, from which the full one follows.
        published: run the network of the package ``panns_inference`` instead of this module's.
        device: torch device.
    """

    rate = RATE

    def __init__(self, checkpoint: Path, yamnet_classes: Path, *, published: bool, device: str) -> None:
        self.classes = audioset_classes(read_classes(yamnet_classes))
        state = load_checkpoint(checkpoint)
        self._tag: Callable[[torch.Tensor], torch.Tensor]
        if published:
            network = published_network()
            self._tag = lambda audio: network(audio)["clipwise_output"]
        else:
            network = Cnn14()
            self._tag = network
            # The published front end keeps its Fourier matrices as weights; torch.stft has its own.
            state = {name: value for name, value in state.items() if not name.startswith("spectrogram_extractor.")}
        network.load_state_dict(state)
        network.eval().to(device)
        self._device = device

    @torch.inference_mode()
    def __call__(self, audio: np.ndarray) -> np.ndarray:
        """float32 ``[patches, 527]`` in 0…1 of mono 32 kHz audio, padded with silence to whole patches."""
        size, hop = round(PATCH_S * RATE), round(HOP_S * RATE)
        count = 1 + max(0, math.ceil((len(audio) - size) / hop))
        padded = np.zeros((count - 1) * hop + size, np.float32)
        padded[: len(audio)] = audio
        patches = torch.from_numpy(padded).unfold(0, size, hop)
        return torch.cat([self._tag(batch.to(self._device)).cpu() for batch in patches.split(_BATCH)]).numpy()


def audioset_classes(yamnet_classes: Sequence[str]) -> list[str]:
    """The 527 class names in AudioSet's order."""
    names = list(yamnet_classes)
    for index, name in _NOT_IN_YAMNET.items():
        names.insert(index, name)
    return names


def load_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """The state dict of a Cnn14 checkpoint. Nothing but tensors is unpickled.

    Raises:
        ValueError: the file is no such checkpoint.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)["model"]
    except (UnpicklingError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{path} is not a PANNs checkpoint ({{'model': state dict}}): {error}") from error


def published_network() -> nn.Module:
    """``panns_inference.models.Cnn14`` at its published settings, randomly initialised.

    Only the module ``models`` is imported: the package's own ``__init__`` would download a class list.

    Raises:
        ImportError: the package is not installed (extra ``panns``).
    """
    spec = importlib.util.find_spec("panns_inference")
    if spec is None:
        raise ImportError("the events backend 'panns_inference' needs that package: pip install unitalking[panns]")
    sys.modules.setdefault("panns_inference", importlib.util.module_from_spec(spec))
    models = importlib.import_module("panns_inference.models")
    return models.Cnn14(
        sample_rate=RATE, window_size=_FFT, hop_size=_STEP, mel_bins=_MELS, fmin=50, fmax=14_000, classes_num=527
    )
