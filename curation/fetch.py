"""Downloading the model files of a configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from curation.config import models
from kit.weights import WeightsError, fetch


def fetch_models(config: str, overrides: Sequence[str], report: Callable[[str], None]) -> None:
    """Fetch what a configuration may use, and report each file; one that has a stand-in may be out of reach.

    Raises:
        WeightsError: a necessary file could not be had.
    """
    for name, necessary in models(config, overrides).items():
        try:
            report(f"{name}: {fetch(name)}")
        except WeightsError as error:
            if necessary:
                raise
            report(f"note: {error}\n  the configuration has a stand-in for what needs it")
