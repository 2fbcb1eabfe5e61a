"""Accuracy under attack; every number the project reports comes from here."""

from lasat_ray.evaluation.accuracy import accuracy

__all__ = ["accuracy"]
