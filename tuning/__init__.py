"""Sweeps and searches over training runs on Ray Tune: ``sweep_k``, ``sweep_weights``, ``search_strategy``."""

import lasat_ray.cluster  # noqa: F401 - sets Ray's token mode, which Ray reads when it is first imported
