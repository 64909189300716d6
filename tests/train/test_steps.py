"""A step's task and learning rate."""

from __future__ import annotations

import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from train.config import OptimizerConfig
from train.steps import learning_rate, task_at

SHARES = {"t2av": 0.4, "tv2a": 0.2, "ti2av": 0.2, "tr2av": 0.2}


@given(st.integers(0, 2**40), st.integers(0, 10**6), st.integers(1, 2000))
def test_any_stretch_of_steps_has_the_shares(seed, begin, length):
    drawn = Counter(task_at(step, SHARES, seed).name for step in range(begin, begin + length))
    for name, share in SHARES.items():
        assert abs(drawn[name] - share * length) < 4


def test_tasks_depend_on_seed_and_step_alone_and_have_no_period():
    drawn = [task_at(step, SHARES, 1).name for step in range(400)]
    assert drawn == [task_at(step, SHARES, 1).name for step in range(400)]
    assert drawn != [task_at(step, SHARES, 2).name for step in range(400)]
    for period in range(1, 80):
        assert drawn[: 400 - period] != drawn[period:]


def test_the_order_of_a_recipes_lines_does_not_matter():
    other = dict(reversed(SHARES.items()))
    assert all(task_at(step, SHARES, 0) == task_at(step, other, 0) for step in range(200))


def test_a_task_without_a_share_is_never_drawn():
    assert {task_at(step, {"tts": 1.0, "tts_ref": 0.0}, 0).name for step in range(200)} == {"tts"}


def test_warm_up_constant_and_cosine():
    config = OptimizerConfig(lr=1e-3, warmup=10)
    assert [learning_rate(s, config, 100) for s in (0, 4, 9, 99)] == [1e-4, 5e-4, 1e-3, 1e-3]
    config = OptimizerConfig(lr=1e-3, warmup=0, decay="cosine", decay_from=0.5)
    assert learning_rate(50, config, 100) == 1e-3
    assert math.isclose(learning_rate(75, config, 100), 5e-4)
    assert 0 < learning_rate(99, config, 100) < 1e-5
