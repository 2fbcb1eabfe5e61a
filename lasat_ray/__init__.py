"""Adversarial training with a learnable attack strategy (LAS-AT, CVPR 2022), on Ray."""

from typing import Any

import gymnasium

__version__ = "0.1.0"
__all__ = ["ENV_ID", "__version__", "load_model"]

ENV_ID = "lasat/AttackStrategy-v0"

# ``gymnasium.make("lasat_ray:lasat/AttackStrategy-v0")`` imports this package to find the id; the classes
# are imported when an environment is made.
if ENV_ID not in gymnasium.registry:
    gymnasium.register(
        id=ENV_ID,
        entry_point="lasat_ray.env.build:make_env",
        vector_entry_point="lasat_ray.env.build:make_vector_env",
    )


def __getattr__(name: str) -> Any:
    """``lasat_ray.load_model``, imported at first use: it needs torch, naming the version does not."""
    if name == "load_model":
        from lasat_ray.runs.load import load_model

        return load_model
    raise AttributeError(f"module 'lasat_ray' has no attribute '{name}'")
