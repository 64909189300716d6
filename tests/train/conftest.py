"""Quiet: torch.distributed.checkpoint logs every tensor for debugging, which pytest would collect."""

from __future__ import annotations

import logging

logging.getLogger("c10d-NullHandler-dcp_logger").setLevel(logging.WARNING)
