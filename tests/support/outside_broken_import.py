"""A module that cannot be imported."""

raise RuntimeError("a driver\nis missing")
