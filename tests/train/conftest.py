"""The fixtures of :mod:`tests.object_store`, and quiet: torch.distributed.checkpoint logs every tensor for debugging,
which pytest would collect."""

from __future__ import annotations

import logging

from tests.object_store import bucket, s3_endpoint

__all__ = ["bucket", "s3_endpoint"]

logging.getLogger("c10d-NullHandler-dcp_logger").setLevel(logging.WARNING)
