"""Whole runs, each composed of jobs of the lower floors: the release, the demo, generated worlds."""
