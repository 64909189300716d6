"""The fixtures of :mod:`tests.object_store`, and a small release that tests only read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.object_store import bucket, s3_endpoint
from tests.unitalking_data.releases import SPLITS, write_release
from unitalking_data.dataset import ClipDataset

__all__ = ["bucket", "s3_endpoint"]


@pytest.fixture(scope="session")
def release(tmp_path_factory) -> Path:
    """A release of ``SPLITS`` with the latents ``tiny``."""
    root = tmp_path_factory.mktemp("release")
    write_release(str(root), SPLITS, encoder="tiny")
    return root


@pytest.fixture(scope="module")
def clips(release) -> ClipDataset:
    return ClipDataset(release, "train", seed=5)
