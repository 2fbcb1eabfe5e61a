"""Sweeps and searches over training runs on Ray Tune: ``sweep_k``, ``sweep_weights``, ``search_strategy``."""
