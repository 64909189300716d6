"""The fixtures of :mod:`tests.object_store`."""

from tests.object_store import bucket, s3_endpoint

__all__ = ["bucket", "s3_endpoint"]
