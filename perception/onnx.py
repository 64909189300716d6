"""ONNX models on one CPU thread, so that many actors share a machine fairly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnxruntime


def open_model(path: Path, providers: Sequence[str] = ("CPUExecutionProvider",)) -> onnxruntime.InferenceSession:
    """Open the model of an ONNX file.

    Args:
        providers: onnxruntime's execution providers in order of preference.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=list(providers))
