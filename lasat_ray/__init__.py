"""Adversarial training with a learnable attack strategy (LAS-AT, CVPR 2022), on Ray."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "load_model"]


def __getattr__(name: str) -> Any:
    """``lasat_ray.load_model``, imported at first use: it needs torch, naming the version does not."""
    if name == "load_model":
        from lasat_ray.load import load_model

        return load_model
    raise AttributeError(f"module 'lasat_ray' has no attribute '{name}'")
