"""DNSMOS P.835: predicted opinion scores of speech, background and the whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from perception.onnx import open_model

WINDOW = 144_160  # 9.01 s, the network's input
# Of the public repository (microsoft/DNS-Challenge): raw network output to mean opinion score, highest power first.
_CALIBRATION = (
    (-0.08397278, 1.22083953, 0.0052439),
    (-0.13166888, 1.60915514, -0.39604546),
    (-0.06766283, 1.11546468, 0.04602535),
)


class Dnsmos:
    """The P.835 network (sig_bak_ovr.onnx, MIT)."""

    def __init__(self, path: Path) -> None:
        self._model = open_model(path)

    def __call__(self, speech: np.ndarray) -> np.ndarray:
        """float64 ``[windows, 3]``: SIG, BAK, OVRL, about 1…5, of mono 16 kHz audio.

        Audio under 9.01 s is repeated to fill the window, as the public implementation does. That one moves its
        windows by 1 s; here they lie evenly with the fewest that leave at most half a window's length unheard.
        """
        speech = np.clip(speech, -1, 1)
        if len(speech) < WINDOW:
            speech = np.tile(speech, -(-WINDOW // len(speech)))[:WINDOW]
        count = round(len(speech) / WINDOW)
        starts = np.linspace(0, len(speech) - WINDOW, count, dtype=int)
        windows = [speech[None, start : start + WINDOW].astype(np.float32) for start in starts]
        raw = np.concatenate([self._model.run(None, {"input_1": window})[0] for window in windows])
        return np.stack([np.polyval(fit, raw[:, k]) for k, fit in enumerate(_CALIBRATION)], axis=1)
