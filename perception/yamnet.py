"""YAMNet, 8-bit: 521 AudioSet classes of each 0.96 s patch, every 0.48 s."""

from __future__ import annotations

import csv
import math
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from scipy.special import expit

from media.clip import SPEECH_RATE
from perception.onnx import open_model

PATCH_S, HOP_S = 0.96, 0.48
_PATCH, _HOP = 96, 48  # spectrogram frames
_FRAME, _STEP, _FFT = 400, 160, 512  # samples: 25 ms, 10 ms
_BANDS, _LOW_HZ, _HIGH_HZ = 64, 125.0, 7500.0
_LOG_OFFSET = 0.001
# Affine quantisation of the registered export's input and output: real = (code − zero) · scale.
_INPUT_SCALE, _INPUT_ZERO = 0.04793788, 144
_OUTPUT_SCALE, _OUTPUT_ZERO = 0.75654173, 190


class Yamnet:
    """The tagger (MobileNet v1, github.com/tensorflow/models, research/audioset/yamnet).

    Args:
        archive: zip with one ONNX file and its external data; input uint8 ``[1, 1, 96, 64]`` log-mel patches,
            output uint8 ``[1, 521]`` logits.
        classes: CSV with the columns ``index, mid, display_name``.
    """

    rate = SPEECH_RATE

    def __init__(self, archive: Path, classes: Path) -> None:
        self.classes = read_classes(classes)
        # onnxruntime wants the external data beside the model; both are in memory once it is open.
        with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(archive) as bundle:
            bundle.extractall(folder)
            self._model = open_model(next(Path(folder).rglob("*.onnx")))

    def __call__(self, audio: np.ndarray) -> np.ndarray:
        """float32 ``[patches, 521]`` in 0…1 of mono 16 kHz audio; patch *k* begins at ``k · 0.48`` s."""
        logits = []
        for patch in patches(audio):
            code = np.clip(np.rint(patch / _INPUT_SCALE) + _INPUT_ZERO, 0, 255).astype(np.uint8)
            logits.append(self._model.run(None, {"audio": code[None, None]})[0][0])
        real = (np.array(logits, np.float32) - _OUTPUT_ZERO) * _OUTPUT_SCALE
        return expit(real)


def read_classes(path: Path) -> list[str]:
    with path.open(newline="", encoding="utf-8") as file:
        return [row["display_name"] for row in csv.DictReader(file)]


def patches(audio: np.ndarray) -> np.ndarray:
    """Log-mel ``[patches, 96, 64]``; the audio is padded with silence to whole patches."""
    count = 1 + max(0, math.ceil((len(audio) / _STEP - _PATCH) / _HOP))
    frames = (count - 1) * _HOP + _PATCH
    padded = np.zeros((frames - 1) * _STEP + _FRAME, np.float32)
    padded[: len(audio)] = audio[: len(padded)]
    windows = np.lib.stride_tricks.sliding_window_view(padded, _FRAME)[::_STEP] * _WINDOW
    spectrum = np.abs(np.fft.rfft(windows, _FFT, axis=1)).astype(np.float32)
    log_mel = np.log(spectrum @ _MEL + _LOG_OFFSET)
    return np.lib.stride_tricks.sliding_window_view(log_mel, _PATCH, axis=0)[::_HOP].transpose(0, 2, 1)


def _mel_weights() -> np.ndarray:
    """float32 ``[257, 64]``: triangles of height 1 on the mel scale 1127 ln(1 + f / 700).

    TensorFlow's, which the network was trained on, have straight sides over mel; those of media.mel over Hz.
    """
    edges = np.linspace(_mel(_LOW_HZ), _mel(_HIGH_HZ), _BANDS + 2)
    mel = _mel(np.arange(_FFT // 2 + 1) * SPEECH_RATE / _FFT)[:, None]
    rising = (mel - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - mel) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


def _mel(hertz: float | np.ndarray) -> float | np.ndarray:
    return 1127.0 * np.log1p(np.asarray(hertz) / 700.0)


_WINDOW = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_FRAME) / _FRAME)).astype(np.float32)
_MEL = _mel_weights()
