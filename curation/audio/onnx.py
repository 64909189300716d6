"""ONNX models as this project runs them: on one CPU core, so that many actors share a machine fairly."""

from __future__ import annotations

from pathlib import Path

import onnxruntime


def open_model(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
