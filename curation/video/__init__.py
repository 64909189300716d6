"""Scorers of the video tier, one file each."""
