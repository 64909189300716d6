"""Light-ASD and LR-ASD: networks that tell whether the face of a track is the one that speaks.

Liao et al., "A Light Weight Model for Active Speaker Detection" (CVPR 2023, github.com/Junhua-Liao/Light-ASD) and
"LR-ASD: Lightweight and Robust Network for Active Speaker Detection" (IJCV 2025, github.com/Junhua-Liao/LR-ASD).
Both split their convolutions into one across the frame (or the MFCC axis) and one over time, reduce each 25 fps
frame to 128 numbers, and read the sequence with one GRU forwards and one backwards.

The published convolutions are three-dimensional; here each is a two-dimensional one on channels-last tensors with
its normalisation folded in, which gives the same numbers in well under half the time on a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from torch import nn

from media.clip import GRID_FPS
from media.mel import mfcc
from perception.syncnet import CROP_SIDE, MFCC_PER_FRAME, crop_track

DURATIONS = (1, 2, 3, 4, 5, 6)  # seconds; the published {1,1,1,2,2,2,3,3,4,5,6} is a Python set
FACE_SIDE = 112
_MEAN, _DEVIATION = 0.4161, 0.1688  # of grey values in 0…1
_CHANNELS = (1, 32, 64, 128)
_NORM_EPSILON = 1e-3
# Frames encoded at once bound the memory; the margin covers what the convolutions over time can see.
_CHUNK, _MARGIN = 100, 9

Axis = Literal["space", "mfcc", "time of frames", "time of mfcc"]


class _Layer(nn.Conv2d):
    """Convolution, normalisation (folded in) and ReLU.

    Frames are ``[T, C, H, W]``, audio is ``[1, C, 13, 4 T]``. Frames in channels-last order are the same memory as
    a ``[1, C, T, H W]`` image in that order, so a convolution over time costs no copy.
    """

    def __init__(self, axis: Axis, inputs: int, outputs: int, size: int, stride: int = 1) -> None:
        shape = {"space": (size, size), "mfcc": (size, 1), "time of frames": (size, 1), "time of mfcc": (1, size)}
        kernel = shape[axis]
        super().__init__(inputs, outputs, kernel, stride, (kernel[0] // 2, kernel[1] // 2))
        self._over_frames = axis == "time of frames"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self._over_frames:
            return super().forward(x).relu_()
        frames, channels, height, width = x.shape
        series = x.permute(0, 2, 3, 1).reshape(1, frames, height * width, channels).permute(0, 3, 1, 2)
        y = super().forward(series).relu_()
        return y.permute(0, 2, 3, 1).reshape(frames, height, width, -1).permute(0, 3, 1, 2)

    @torch.no_grad()
    def fold(self, weight: torch.Tensor, norm: Mapping[str, torch.Tensor]) -> None:
        """Set the parameters from a convolution's weight and its batch normalisation."""
        scale = norm["weight"] / torch.sqrt(norm["running_var"] + _NORM_EPSILON)
        # The published kernels are 3-D for frames: one axis, time or space, has length 1.
        self.weight.copy_((weight * scale.view(-1, *[1] * (weight.dim() - 1))).reshape(self.weight.shape))
        self.bias.copy_(norm["bias"] - norm["running_mean"] * scale)


class _TwoPaths(nn.Module):
    """Light-ASD's block: kernels of 3 and of 5 side by side, summed and mixed."""

    def __init__(self, across: Axis, time: Axis, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.short, self.long = (
            nn.Sequential(_Layer(across, inputs, outputs, size, stride), _Layer(time, outputs, outputs, size))
            for size in (3, 5)
        )
        self.mix = _Layer(across, outputs, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mix(self.short(x) + self.long(x))

    def published(self, letter: str) -> list[tuple[_Layer, str, str]]:
        """Each layer with the names of its convolution and normalisation in the published state dict."""
        layers = [*self.short, *self.long, self.mix]
        names = [f"{letter}_3", "t_3", f"{letter}_5", "t_5", "last"]
        return [(layer, name, f"bn_{name}") for layer, name in zip(layers, names, strict=True)]


class _Chain(nn.Sequential):
    """LR-ASD's block: kernels of 5 and 3 one after the other, across and then over time."""

    def __init__(self, across: Axis, time: Axis, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(
            _Layer(across, inputs, outputs // 2, 5, stride),
            _Layer(across, outputs // 2, outputs, 3),
            _Layer(time, outputs, outputs, 5),
            _Layer(time, outputs, outputs, 3),
        )

    def published(self, letter: str) -> list[tuple[_Layer, str, str]]:
        names = [(letter, 1), (letter, 2), ("t", 1), ("t", 2)]
        return [(layer, f"{x}_{k}", f"{x}_norm_{k}") for layer, (x, k) in zip(self, names, strict=True)]


class _Gate(nn.Module):
    """LR-ASD's fusion: each of the joined channels weighted by a gate that sees all of them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = nn.Conv1d(channels, channels, 1, bias=False)
        self.bn = nn.BatchNorm1d(channels, eps=_NORM_EPSILON)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        joined = torch.cat([left, right], -1).transpose(1, 2)
        return (joined * torch.sigmoid(self.bn(self.attention(joined)))).transpose(1, 2)


class _LightReader(nn.Module):
    """Video plus audio features through two GRUs, the second one backwards over the first."""

    def __init__(self) -> None:
        super().__init__()
        self.gru_forward, self.gru_backward = (nn.GRU(128, 128, batch_first=True) for _ in range(2))

    def forward(self, video: torch.Tensor, audio: torch.Tensor) -> torch.Tensor:
        x = nn.functional.gelu(self.gru_forward(video + audio)[0])
        return nn.functional.gelu(self.gru_backward(x.flip(1))[0].flip(1))

    def published(self) -> dict[str, str]:
        return {f"GRU.{name}": name for name in self.state_dict()}


class _GatedReader(nn.Module):
    """Video and audio features gated, two GRUs side by side in either direction, gated again."""

    def __init__(self) -> None:
        super().__init__()
        self.fusion = _Gate(256)
        self.gru_forward, self.gru_backward = (nn.GRU(256, 64, batch_first=True) for _ in range(2))
        self.attention = _Gate(128)

    def forward(self, video: torch.Tensor, audio: torch.Tensor) -> torch.Tensor:
        x = self.fusion(audio, video)
        return self.attention(self.gru_forward(x)[0], self.gru_backward(x.flip(1))[0].flip(1))

    def published(self) -> dict[str, str]:
        return {name if name.startswith("fusion.") else f"detector.{name}": name for name in self.state_dict()}


_PARTS = {"light_asd": (_TwoPaths, _LightReader), "lr_asd": (_Chain, _GatedReader)}
ASD_MODELS = tuple(_PARTS)


class ActiveSpeakerNet(nn.Module):
    """One of ``ASD_MODELS``, by name. Its answers are raw logits of "this face speaks now": over 0 is speaking."""

    def __init__(self, model: str) -> None:
        super().__init__()
        block, reader = _PARTS[model]
        steps = list(pairwise(_CHANNELS))
        self.video_blocks = nn.ModuleList(block("space", "time of frames", a, b, 2 if a == 1 else 1) for a, b in steps)
        self.audio_blocks = nn.ModuleList(block("mfcc", "time of mfcc", a, b, 1) for a, b in steps)
        self.reader = reader()
        self.classifier = nn.Linear(128, 2)

    def encode_video(self, faces: torch.Tensor) -> torch.Tensor:
        """float ``[T, 112, 112]``, grey 0…255 -> ``[1, T, 128]``."""
        x = ((faces / 255 - _MEAN) / _DEVIATION)[:, None].contiguous(memory_format=torch.channels_last)
        for index, block in enumerate(self.video_blocks):
            x = nn.functional.max_pool2d(x, 3, 2, 1) if index else x
            x = block(x)
        return x.amax((2, 3))[None]

    def encode_audio(self, cepstra: torch.Tensor) -> torch.Tensor:
        """float ``[4 T, 13]`` -> ``[1, T, 128]``."""
        x = cepstra.T[None, None]
        for index, block in enumerate(self.audio_blocks):
            x = nn.functional.max_pool2d(x, (1, 3), (1, 2), (0, 1)) if index else x
            x = block(x)
        return x.mean(2).transpose(1, 2)

    def logits(self, video: torch.Tensor, audio: torch.Tensor) -> torch.Tensor:
        """Two ``[1, T, 128]`` -> logits ``[T]``."""
        return self.classifier(self.reader(video, audio))[0, :, 1]


def load_asd(path: Path, model: str) -> ActiveSpeakerNet:
    """The network of a published state dict, ready to score on a GPU where there is one.

    Raises:
        RuntimeError: parameters are missing, left over or of another shape.
        pickle.UnpicklingError: the file holds anything but tensors.
    """
    net = ActiveSpeakerNet(model)
    state = dict(torch.load(path, map_location="cpu", weights_only=True))
    encoders = (("visualEncoder", net.video_blocks, "s"), ("audioEncoder", net.audio_blocks, "m"))
    try:
        for encoder, blocks, letter in encoders:
            for index, block in enumerate(blocks, start=1):
                for layer, conv, norm in block.published(letter):
                    prefix = f"model.{encoder}.block{index}."
                    terms = ("weight", "bias", "running_mean", "running_var")
                    state.pop(f"{prefix}{norm}.num_batches_tracked")
                    layer.fold(
                        state.pop(f"{prefix}{conv}.weight"), {t: state.pop(f"{prefix}{norm}.{t}") for t in terms}
                    )
        reader = {name: state.pop(f"model.{theirs}") for theirs, name in net.reader.published().items()}
        net.reader.load_state_dict(reader, strict=True)
        head = {name: state.pop(f"lossAV.FC.{name}") for name in ("weight", "bias")}
        net.classifier.load_state_dict(head, strict=True)
    except KeyError as missing:
        raise RuntimeError(f"{path}: not the weights of {model}: it has no {missing}") from None
    # The head that only training uses, on video alone.
    left_over = [name for name in state if not name.startswith("lossV.")]
    if left_over:
        raise RuntimeError(f"{path}: not the weights of {model}: nothing takes {', '.join(left_over[:5])}")
    return net.eval().to("cuda" if torch.cuda.is_available() else "cpu", memory_format=torch.channels_last)


def face_crops(frames: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The network's view of a track: uint8 grey ``[n, 112, 112]``.

    As Columbia_test.py cuts them: SyncNet's crop (1.4 faces wide), of which the middle half is kept.

    Args:
        frames: uint8 RGB ``[n, h, w, 3]``, the frames of one track at 25 fps.
        boxes: ``[n, 4]`` face boxes x0, y0, x1, y1 in pixels.
    """
    edge = (CROP_SIDE - FACE_SIDE) // 2
    middle = slice(edge, edge + FACE_SIDE)
    return np.stack([cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY)[middle, middle] for crop in crop_track(frames, boxes)])


def speech_cepstra(speech: np.ndarray) -> np.ndarray:
    """MFCC float32 ``[m, 13]`` at 100 Hz of float32 speech at 16 kHz in −1…1, not normalised, as the network wants."""
    return mfcc(np.clip(np.round(speech * 32768), -32768, 32767)).astype(np.float32)


@torch.inference_mode()
def speaking_scores(
    net: ActiveSpeakerNet, faces: np.ndarray, cepstra: np.ndarray, durations: Sequence[int], encode_once: bool
) -> np.ndarray:
    """Logit per frame, the mean over cutting the track into pieces of each of ``durations`` seconds.

    The published code compares the length of the audio in seconds with that of the video in frames, so seconds
    nearly always win; here both are frames. A track's last frame has no score, as there: its last MFCC window reaches
    past the end of the audio. The published code rounds to 0.1; this does not.

    Args:
        faces: uint8 ``[n, 112, 112]`` of :func:`face_crops`.
        cepstra: float32 ``[m, 13]`` of :func:`speech_cepstra`, starting with the first face.
        durations: seconds; the published demo averages 1 to 6.
        encode_once: convolutions see the whole track, and only the recurrent part reads it in pieces. Faster by the
            number of durations. False is the published way: convolutions see each piece by itself, zeros around it.

    Returns:
        float32 ``[min(n, m // 4)]``.
    """
    count = min(len(faces), len(cepstra) // MFCC_PER_FRAME)
    if count == 0:
        return np.zeros(0, np.float32)
    device = net.classifier.weight.device
    frames = torch.from_numpy(faces[:count]).to(device)
    audio = torch.from_numpy(cepstra[: count * MFCC_PER_FRAME]).to(device)
    whole = (_encode_in_chunks(net, frames), net.encode_audio(audio)) if encode_once else None
    total = torch.zeros(count, device=device)
    for seconds in durations:
        length = round(seconds * GRID_FPS)
        for start in range(0, count, length):
            stop = min(start + length, count)
            if whole is not None:
                seen, heard = (part[:, start:stop] for part in whole)
            else:
                seen = net.encode_video(frames[start:stop].float())
                heard = net.encode_audio(audio[start * MFCC_PER_FRAME : stop * MFCC_PER_FRAME])
            total[start:stop] += net.logits(seen, heard)
    return (total / len(durations)).cpu().numpy()


def _encode_in_chunks(net: ActiveSpeakerNet, frames: torch.Tensor) -> torch.Tensor:
    parts = []
    for chunk in range(math.ceil(len(frames) / _CHUNK)):
        start = chunk * _CHUNK
        first = max(start - _MARGIN, 0)
        seen = net.encode_video(frames[first : start + _CHUNK + _MARGIN].float())
        parts.append(seen[:, start - first : start - first + _CHUNK])
    return torch.cat(parts, 1)
