"""Ingest: list the sources, open each once, cut them into clips."""
