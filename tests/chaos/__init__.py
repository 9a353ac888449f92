"""Sweeps under attack: `python -m tests.chaos --seconds 300 --seed 0`."""
