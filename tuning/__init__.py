"""Sweeps and searches over training runs. The scripts land here; nothing imports from this package."""
