"""Adversarial training with a learnable attack strategy (LAS-AT, CVPR 2022), on Ray."""

import importlib
import importlib.abc
import importlib.util
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lasat_ray.api.attacking import attack
    from lasat_ray.api.evaluating import evaluate
    from lasat_ray.api.explaining import explain
    from lasat_ray.api.loading import load_model
    from lasat_ray.api.predicting import predict
    from lasat_ray.api.reporting import report
    from lasat_ray.api.settings import recipe
    from lasat_ray.api.sweeping import sweep
    from lasat_ray.api.training import train
    from lasat_ray.errors import UsageError, UserError

__version__ = "0.1.0"
__all__ = [
    "ENV_ID",
    "UsageError",
    "UserError",
    "__version__",
    "attack",
    "evaluate",
    "explain",
    "load_model",
    "predict",
    "recipe",
    "report",
    "sweep",
    "train",
]

ENV_ID = "lasat/AttackStrategy-v0"

API = {
    "attack": "lasat_ray.api.attacking",
    "evaluate": "lasat_ray.api.evaluating",
    "explain": "lasat_ray.api.explaining",
    "load_model": "lasat_ray.api.loading",
    "predict": "lasat_ray.api.predicting",
    "recipe": "lasat_ray.api.settings",
    "report": "lasat_ray.api.reporting",
    "sweep": "lasat_ray.api.sweeping",
    "train": "lasat_ray.api.training",
}
"""Name -> the file that defines it, imported at first use: naming the version needs no torch. Type checkers
see the imports above."""
ERRORS = ("UsageError", "UserError")


class _Function:
    """A name of the API as an attribute of this package. Some are names of commands too: importing the module
    ``lasat_ray.train`` leaves the function ``lasat_ray.train`` in its place, which then has its ``main``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.function: Any = None

    def __get__(self, package: ModuleType, owner: type | None = None) -> Any:
        if self.function is None:
            self.function = getattr(importlib.import_module(API[self.name]), self.name)
            if importlib.util.find_spec(f"{__name__}.{self.name}"):
                self.function.main = self._main
        return self.function

    def __set__(self, package: ModuleType, value: Any) -> None:
        if not isinstance(value, ModuleType):
            self.function = value

    def _main(self, *args: Any) -> int:
        """The command of this name."""
        return importlib.import_module(f"{__name__}.{self.name}").main(*args)


class _Package(ModuleType):
    """This package; the functions of its API are imported when they are asked for."""

    def __dir__(self) -> list[str]:
        return sorted({*__all__, *(name for name in self.__dict__ if name.startswith("__"))})


for _name in API:
    setattr(_Package, _name, _Function(_name))
sys.modules[__name__].__class__ = _Package


if not TYPE_CHECKING:  # they would take any name

    def __getattr__(name: str) -> Any:
        """``lasat_ray.UserError``, imported at first use as the functions are."""
        if name in ERRORS:
            return getattr(importlib.import_module("lasat_ray.errors"), name)
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
