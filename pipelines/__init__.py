"""Whole runs: end-to-end compositions of the jobs below."""
