"""Sweeps and searches over training runs on Ray Tune, from a clone: doors to ``lasat_ray.tune``."""
