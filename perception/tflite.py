"""TensorFlow Lite models on one thread."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter


class TfliteModel:
    """A model with one float32 image input ``[1, side, side, 3]``."""

    def __init__(self, path: Path) -> None:
        self._interpreter = Interpreter(str(path), num_threads=1)
        self._interpreter.allocate_tensors()
        (entry,) = self._interpreter.get_input_details()
        self._input = entry["index"]
        self._outputs = [output["index"] for output in self._interpreter.get_output_details()]
        self.side = int(entry["shape"][1])

    def __call__(self, image: np.ndarray) -> list[np.ndarray]:
        """Outputs in the model's own order for float32 ``[side, side, 3]``."""
        self._interpreter.set_tensor(self._input, image[None])
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outputs]
