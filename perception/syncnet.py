"""SyncNet v2, the lip-sync network of the paper, with its published preprocessing and scoring.

Chung and Zisserman, "Out of time: automated lip sync in the wild" (ACCV workshop 2016); the public code is
joonson/syncnet_python at 6efbb1c (SyncNetModel.py, SyncNetInstance.py, the crop of run_pipeline.py). Parameter
names are those of the published ``syncnet_v2.model``, so that file loads strictly.

The public code pads the audio embeddings with zeros at both ends of a clip. That favours offset 0 slightly on short
clips; it is kept, because Sync-C and Sync-D are defined by it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.signal import medfilt
from torch import nn
from torch.nn.functional import pad, pairwise_distance

CROP_SIDE = 224
CROP_SCALE = 0.40
WINDOW = 5  # video frames a window; the audio window of the same length is 20 MFCC steps of 10 ms
MFCC_PER_FRAME = 4
DIMENSIONS = 1024
MAX_SHIFT = 15
SAMPLES_PER_FRAME = 640
MIN_FRAMES = WINDOW + 1
PAD_VALUE = 110


class SyncNet(nn.Module):
    """Two encoders into one 1,024-dimensional space where audio and lips that belong together are near."""

    def __init__(self) -> None:
        super().__init__()
        # The indices inside each Sequential are part of the published parameter names, so the pooling of size 1
        # after the first audio convolution stays.
        self.netcnnaud = nn.Sequential(
            *_conv2d(1, 64, 3, 1),
            nn.MaxPool2d(1, 1),
            *_conv2d(64, 192, 3, 1),
            nn.MaxPool2d(3, (1, 2)),
            *_conv2d(192, 384, 3, 1),
            *_conv2d(384, 256, 3, 1),
            *_conv2d(256, 256, 3, 1),
            nn.MaxPool2d(3, 2),
            *_conv2d(256, 512, (5, 4), 0),
        )
        self.netcnnlip = nn.Sequential(
            *_conv3d(3, 96, (5, 7, 7), (1, 2, 2), 0),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_conv3d(96, 256, (1, 5, 5), (1, 2, 2), (0, 1, 1)),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            *_conv3d(256, 256, (1, 3, 3), 1, (0, 1, 1)),
            *_conv3d(256, 256, (1, 3, 3), 1, (0, 1, 1)),
            *_conv3d(256, 256, (1, 3, 3), 1, (0, 1, 1)),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_conv3d(256, 512, (1, 6, 6), 1, 0),
        )
        self.netfcaud = _head()
        self.netfclip = _head()

    def encode_lips(self, windows: torch.Tensor) -> torch.Tensor:
        """float ``[N, 3, 5, 224, 224]``, BGR 0…255 -> ``[N, 1024]``."""
        return self.netfclip(self.netcnnlip(windows).flatten(1))

    def encode_audio(self, windows: torch.Tensor) -> torch.Tensor:
        """float ``[N, 1, 13, 20]``, MFCC of 16-bit samples -> ``[N, 1024]``."""
        return self.netfcaud(self.netcnnaud(windows).flatten(1))


def _conv2d(inputs: int, outputs: int, kernel: int | tuple[int, int], padding: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel, padding=padding), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def _conv3d(inputs: int, outputs: int, kernel: tuple, stride: int | tuple, padding: int | tuple) -> list[nn.Module]:
    return [nn.Conv3d(inputs, outputs, kernel, stride, padding), nn.BatchNorm3d(outputs), nn.ReLU(inplace=True)]


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, DIMENSIONS))


def load_syncnet(path: str | Path) -> SyncNet:
    """The network with the weights of ``path`` (a state dict), ready to score.

    Raises:
        RuntimeError: parameters are missing, left over or of another shape.
        pickle.UnpicklingError: the file holds anything but tensors.
    """
    net = SyncNet()
    net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True), strict=True)
    return net.eval().to("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True, slots=True)
class SyncNetScore:
    """What SyncNet says of one face track.

    Attributes:
        offset: frames at 25 fps by which the audio is late, −15…15. The public tool prints the negative of it.
        sync_c: confidence (LSE-C), median minus minimum of ``distances``.
        sync_d: distance (LSE-D), minimum of ``distances``.
        distances: float32 ``[31]``, mean distance with the audio taken −15…15 frames later.
        confidence: float32 ``[windows]``, per frame at the best offset, median-filtered over nine frames.
    """

    offset: int
    sync_c: float
    sync_d: float
    distances: np.ndarray
    confidence: np.ndarray


def crop_track(frames: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Face crops as run_pipeline.py cuts them.

    Args:
        frames: uint8 RGB ``[n, h, w, 3]``, the frames of one track at 25 fps.
        boxes: ``[n, 4]`` tight face boxes x0, y0, x1, y1 in pixels, one a frame.

    Returns:
        uint8 BGR ``[n, 224, 224, 3]``: 1.4 box sizes wide and high, reaching further below the face's centre than
        above, positions median-filtered over 13 frames, grey 110 outside the frame.
    """
    boxes = np.asarray(boxes, np.float64)
    size = medfilt(np.maximum(boxes[:, 3] - boxes[:, 1], boxes[:, 2] - boxes[:, 0]) / 2, 13)
    x = medfilt((boxes[:, 0] + boxes[:, 2]) / 2, 13)
    y = medfilt((boxes[:, 1] + boxes[:, 3]) / 2, 13)
    crops = np.empty((len(frames), CROP_SIDE, CROP_SIDE, 3), np.uint8)
    for index, frame in enumerate(frames):
        half, border = size[index], int(size[index] * (1 + 2 * CROP_SCALE))
        centre_x, centre_y = x[index] + border, y[index] + border
        top, bottom = int(centre_y - half) - border, int(centre_y + half * (1 + 2 * CROP_SCALE)) - border
        left, right = int(centre_x - half * (1 + CROP_SCALE)) - border, int(centre_x + half * (1 + CROP_SCALE)) - border
        # The public code pads the whole frame and then cuts; padding the cut alone is the same in a tenth of the time.
        (y0, y1), (x0, x1) = np.clip([top, bottom], 0, frame.shape[0]), np.clip([left, right], 0, frame.shape[1])
        padded = np.full((bottom - top, right - left, 3), PAD_VALUE, np.uint8)
        padded[y0 - top : y1 - top, x0 - left : x1 - left] = frame[y0:y1, x0:x1, ::-1]
        crops[index] = cv2.resize(padded, (CROP_SIDE, CROP_SIDE))
    return crops


@torch.inference_mode()
def embed_lips(net: SyncNet, crops: np.ndarray, batch: int = 20) -> torch.Tensor:
    """Embeddings of every 5-frame window of lips.

    Args:
        crops: uint8 BGR ``[n, 224, 224, 3]`` at 25 fps.

    Returns:
        float ``[n - 5, 1024]``: the public code leaves the last window out.
    """
    frames = torch.from_numpy(crops).permute(3, 0, 1, 2)
    windows = [frames[:, t : t + WINDOW] for t in range(len(crops) - WINDOW)]
    return _embed(net.encode_lips, windows, batch, net)


@torch.inference_mode()
def embed_audio(net: SyncNet, mfcc: np.ndarray, batch: int = 20) -> torch.Tensor:
    """Embeddings of the audio under every window of five frames.

    Args:
        mfcc: float ``[steps, 13]`` at 100 Hz, of 16-bit samples at 16 kHz from the first video frame on.

    Returns:
        float ``[m, 1024]``, one for each frame whose 20 steps are there.
    """
    cepstra = torch.from_numpy(np.ascontiguousarray(mfcc, np.float32)).T[None]
    starts = range(0, cepstra.shape[2] - MFCC_PER_FRAME * WINDOW + 1, MFCC_PER_FRAME)
    windows = [cepstra[:, :, t : t + MFCC_PER_FRAME * WINDOW] for t in starts]
    return _embed(net.encode_audio, windows, batch, net)


def _embed(
    encode: Callable[[torch.Tensor], torch.Tensor], windows: Sequence[torch.Tensor], batch: int, net: SyncNet
) -> torch.Tensor:
    device = next(net.parameters()).device
    found = [torch.zeros(0, DIMENSIONS)]
    for start in range(0, len(windows), batch):
        found.append(encode(torch.stack(windows[start : start + batch]).float().to(device)).cpu())
    return torch.cat(found[1:] or found)


def compare(lips: torch.Tensor, audio: torch.Tensor, max_shift: int = MAX_SHIFT) -> SyncNetScore:
    """Distances over shifts and what follows from them.

    Args:
        lips, audio: ``[windows, 1024]``; of unequal numbers the first so many of both count.

    Raises:
        ValueError: there is no window.
    """
    count = min(len(lips), len(audio))
    if not count:
        raise ValueError("SyncNet needs at least six frames of picture and sound")
    lips, padded = lips[:count], pad(audio[:count], (0, 0, max_shift, max_shift))
    distances = torch.stack([pairwise_distance(lips, padded[k : k + count]) for k in range(2 * max_shift + 1)])
    mean = distances.mean(1)
    best = int(mean.argmin())
    framewise = mean.median() - distances[best]
    return SyncNetScore(
        offset=best - max_shift,
        sync_c=float(mean.median() - mean[best]),
        sync_d=float(mean[best]),
        distances=mean.numpy(),
        confidence=medfilt(framewise.numpy(), 9),
    )
