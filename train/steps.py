"""What a step is: its task and its learning rate, functions of the recipe and the step's number."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate

from model.tasks import TASKS, Task
from train.config import OptimizerConfig
from unitalking_data.permutation import hash64

GOLDEN = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio


def task_at(step: int, shares: Mapping[str, float], seed: int) -> Task:
    """The task of a step, on all ranks.

    Steps walk around the unit circle by the golden ratio (a Weyl sequence), so at any moment every task has had its
    share of the steps to within a few, without a period and without state.

    Args:
        shares: by task, see :class:`~train.config.Recipe`.
    """
    place = (hash64("task", seed) + step * GOLDEN) % 2**64
    return TASKS[by_share(shares, place / 2**64)]


def by_share(shares: Mapping[str, float], place: float) -> str:
    """The name in whose stretch of the unit interval ``place`` falls; stretches are as long as shares, by name."""
    names = sorted(name for name, share in shares.items() if share)
    ends = list(accumulate(shares[name] for name in names))
    return names[min(bisect_right(ends, place * ends[-1]), len(names) - 1)]


def learning_rate(step: int, config: OptimizerConfig, steps: int) -> float:
    """The rate of a step, counted from 0, of ``steps``."""
    rate = config.lr * min(1.0, (step + 1) / max(config.warmup, 1))
    if config.decay == "cosine":
        begin = config.decay_from * steps
        done = min(max((step - begin) / max(steps - begin, 1), 0.0), 1.0)
        rate *= 0.5 * (1 + math.cos(math.pi * done))
    return rate
