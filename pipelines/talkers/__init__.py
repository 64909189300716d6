"""Rendered people who talk: heads animated from portraits, and the faults that the demo plants in their clips."""
