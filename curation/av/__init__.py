"""Scorers of the av tier, one file each."""
