"""Adversarial training with a learnable attack strategy (LAS-AT, CVPR 2022), on Ray."""

import importlib.abc
import importlib.util
import sys
from typing import Any

__version__ = "0.1.0"
__all__ = ["ENV_ID", "__version__", "load_model"]

ENV_ID = "lasat/AttackStrategy-v0"


def __getattr__(name: str) -> Any:
    """``lasat_ray.load_model``, imported at first use: it needs torch, naming the version does not."""
    if name == "load_model":
        from lasat_ray.runs.load import load_model

        return load_model
    raise AttributeError(f"module 'lasat_ray' has no attribute '{name}'")


def _register() -> None:
    """``gymnasium.make("lasat_ray:lasat/AttackStrategy-v0")`` imports this package to find the id."""
    import gymnasium

    if ENV_ID not in gymnasium.registry:
        gymnasium.register(
            id=ENV_ID,
            entry_point="lasat_ray.env.build:make_env",
            vector_entry_point="lasat_ray.env.build:make_vector_env",
        )


class _WithGymnasium(importlib.abc.MetaPathFinder):
    """Registers right after Gymnasium is imported, however late: importing it here, and NumPy with it,
    would slow every --help."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        """Python's own finding of Gymnasium, with ``_register`` at its end; None for everything else."""
        if fullname != "gymnasium":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_register(module: Any) -> None:
                load(module)
                _register()

            spec.loader.exec_module = load_and_register  # type: ignore[method-assign]
        return spec


if "gymnasium" in sys.modules:
    _register()
else:
    sys.meta_path.insert(0, _WithGymnasium())
