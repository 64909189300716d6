"""Measurements: each prints its command, the machine, the figure and what it is compared with."""
