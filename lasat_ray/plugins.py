"""Outside code by name: ``module:attribute``, named by the user and by nobody else."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from lasat_ray.errors import UsageError


def search_present_folder() -> None:
    """Let code in the present folder be imported, where an installed command does not look."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def load_plugin(field: str, spelling: str) -> Any:
    """Import ``module:attribute``; a UsageError in one line where that fails."""
    module_name, _, attribute = spelling.partition(":")
    if not module_name or not attribute:
        raise UsageError(f"--{field}: '{spelling}' is not module:name; write for example my_code:MyClass")
    search_present_folder()
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except ImportError as error:
        remedy = "put it on PYTHONPATH or into the present folder"
        raise UsageError(f"--{field}: cannot import '{module_name}' ({error}); {remedy}") from error
    except AttributeError as error:
        raise UsageError(f"--{field}: '{module_name}' has no '{attribute}'; name what it defines") from error
    except Exception as error:
        kind = type(error).__name__
        raise UsageError(
            f"--{field}: importing '{module_name}' raised {kind}: {error}; mend that file"
        ) from error
