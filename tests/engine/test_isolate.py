"""An item that kills or hangs its process is an error of its own; the others are answered in order."""

from __future__ import annotations

import os
import time

import pytest

from engine.isolate import isolated


def behave(item: int) -> int:
    if item == 3:
        os.abort()
    if item == 4:
        time.sleep(600)
    if item == 5:
        raise ValueError("five")
    return item * 10


@pytest.mark.parametrize("workers", [1, 2])
def test_one_bad_item_costs_no_other(workers):
    results = isolated(behave, list(range(8)), time_limit_s=8, workers=workers)
    kinds = [type(result).__name__ for result in results]
    assert kinds == ["int", "int", "int", "RuntimeError", "TimeoutError", "ValueError", "int", "int"]
    assert [r for r in results if isinstance(r, int)] == [0, 10, 20, 60, 70]


def test_no_items():
    assert isolated(behave, []) == []
