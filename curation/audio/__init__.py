"""Scorers of the audio tier, one file each."""
