"""Detects steps that would do harm by the norm of their gradient."""

from __future__ import annotations

import math
from collections import deque
from statistics import median

from train.config import RecoveryConfig


class SpikeDetector:
    """A step is broken if its gradient norm is not finite, or is a multiple of the median of the last ones."""

    def __init__(self, config: RecoveryConfig) -> None:
        self._config = config
        self._norms: deque[float] = deque(maxlen=config.window)

    def state(self) -> list[float]:
        """The last norms, for a checkpoint."""
        return list(self._norms)

    def restore(self, state: list[float]) -> None:
        self._norms.clear()
        self._norms.extend(state)

    def broken(self, norm: float) -> str | None:
        """Why a step with this gradient norm must not be applied, or None; the norm then counts for the next ones."""
        if not math.isfinite(norm):
            return f"the gradient's norm is {norm}"
        if len(self._norms) == self._config.window:
            usual = median(self._norms)
            if norm > self._config.spike * usual:
                return f"the gradient's norm is {norm:.3g}, {norm / usual:.0f} times the usual {usual:.3g}"
        self._norms.append(norm)
        return None
